"""What was trained is found by its stage, and is never paired with another's tokenizer."""

import dataclasses

import jax
import numpy as np
import pytest

from nanochat_jax.checkpoint import load_model, store
from nanochat_jax.config import paths
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models.gpt import Model, init_params
from nanochat_jax.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat"] * 3, 270)
CFG = GPTConfig(
    sequence_len=16, vocab_size=TOKENIZER.get_vocab_size(), n_layer=1, n_head=1, n_kv_head=1,
    n_embd=16,
)  # fmt: skip


def save(base, tag="d1", step=3, folder="base_checkpoints", seed=0):
    params = init_params(CFG, jax.random.key(seed))
    params["lm_head"]["kernel"] = params["lm_head"]["kernel"] + 0.1 * seed
    meta = {"model_config": dataclasses.asdict(CFG), "tokenizer_hash": TOKENIZER.hash}
    store.save(base / folder / tag, step, params, meta)
    return params


def test_the_model_the_tokenizer_and_the_meta_come_back(base_dir):
    TOKENIZER.save(base_dir / "tokenizer")
    params = save(base_dir)
    model, tokenizer, meta = load_model("base")
    ids = [tokenizer.get_bos_token_id(), *tokenizer.encode("the cat")]
    np.testing.assert_allclose(model(ids), Model.create(CFG, params)(ids), atol=1e-6)
    assert meta["step"] == 3 and tokenizer == TOKENIZER
    assert model(ids).shape == (1, len(ids), CFG.vocab_size)


def test_the_deepest_tag_and_the_last_step_are_taken_unless_named(base_dir):
    TOKENIZER.save(base_dir / "tokenizer")
    for tag, step in (("d2", 5), ("d10", 1), ("d10", 7), ("mine", 9)):
        save(base_dir, tag, step)
    assert paths.guess_tag(base_dir / "base_checkpoints") == "d10"
    assert load_model("base")[2]["step"] == 7
    assert load_model("base", "d2")[2]["step"] == 5
    assert load_model("base", "d10", 1)[2]["step"] == 1


def test_a_missing_checkpoint_names_the_command_that_makes_it(base_dir):
    with pytest.raises(FileNotFoundError, match="python -m scripts.train --stage sft"):
        load_model("sft")
    save(base_dir)
    with pytest.raises(FileNotFoundError, match="found tags: d1"):
        load_model("base", "d9")
    with pytest.raises(FileNotFoundError, match="steps found: 3"):
        load_model("base", "d1", 4)


def test_another_tokenizer_is_refused(base_dir):
    Tokenizer.train(["another text altogether"] * 3, 270).save(base_dir / "tokenizer")
    save(base_dir)
    with pytest.raises(ValueError, match="is not the one"):
        load_model("base")


def test_a_tokenizer_kept_beside_the_checkpoint_is_the_one_used(base_dir):
    Tokenizer.train(["another text altogether"] * 3, 270).save(base_dir / "tokenizer")
    save(base_dir)
    TOKENIZER.save(base_dir / "base_checkpoints" / "d1" / "tokenizer")
    assert load_model("base")[1] == TOKENIZER


def test_a_damaged_checkpoint_is_not_loaded(base_dir):
    TOKENIZER.save(base_dir / "tokenizer")
    save(base_dir)
    step = base_dir / "base_checkpoints" / "d1" / "000003"
    file = max(
        (p for p in (step / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="damaged"):
        load_model("base")
