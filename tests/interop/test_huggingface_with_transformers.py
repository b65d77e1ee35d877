"""Our folders in the real transformers, and its folders here."""

import dataclasses

import jax
import numpy as np
import pytest

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.interop import huggingface
from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine import Engine
from nanochat_jax.tokenizer import Tokenizer
from tests import needs
from tests.interop.test_huggingface import CHATS, messages, random_params

torch = needs.package("torch")
transformers = needs.package("transformers")
pytestmark = pytest.mark.slow

SHAPE = dict(sequence_len=64, vocab_size=320, n_layer=3, n_head=4, n_embd=64)
TEXTS = ["", "the cat sat", "  two  spaces\n\n\tand tabs ", "naïve çà 你好 🌍", "1234567890 don't",
         "<|bos|> is text", "x" * 300]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the cat sat on the mat", "a dog ran home and sat"] * 20, 320)


@pytest.fixture(scope="module", params=[(4, "bfloat16"), (2, "bfloat16"), (4, "float32")],
                ids=["mha", "gqa", "float32 tables"])  # fmt: skip
def pair(request, tokenizer, tmp_path_factory):
    """(our model, theirs, the folder between them)."""
    n_kv_head, tables = request.param
    cfg = GPTConfig(**SHAPE, n_kv_head=n_kv_head, rope_table_dtype=tables)
    params = random_params(cfg, seed=1)
    folder = tmp_path_factory.mktemp("hf") / "model"
    huggingface.export(folder, cfg, params, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return Model.create(cfg, params, dtype="float32"), theirs, folder


def test_logits_are_theirs(pair):
    ours, theirs, _ = pair
    ids = np.random.default_rng(0).integers(0, 320, (2, 60))
    with torch.no_grad():
        want = theirs(torch.tensor(ids)).logits.numpy()
    off = np.abs(np.asarray(ours(ids)) - want).max()
    print(f"largest difference of logits, {ours.cfg.rope_table_dtype} tables: {off:.2e}")
    assert off < (1e-4 if ours.cfg.rope_table_dtype == "float32" else 2e-2)


@pytest.mark.parametrize("n_kv_head, softcap", [(4, 0.0), (2, 15.0)], ids=["portable", "classic"])
def test_an_apertus_model_computes_what_ours_does(n_kv_head, softcap, tokenizer, tmp_path):
    cfg = GPTConfig(**SHAPE, n_kv_head=n_kv_head, rope_table_dtype="float32", logit_softcap=softcap)
    params = random_params(cfg, seed=1)
    huggingface.export(tmp_path / "model", cfg, params, tokenizer, as_apertus=True)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32
    ).eval()
    ids = np.random.default_rng(0).integers(0, 320, (2, 60))
    with torch.no_grad():
        got = theirs(torch.tensor(ids)).logits.numpy()
    if softcap:
        got = softcap * np.tanh(got / softcap)
    want = np.asarray(Model.create(cfg, params, dtype="float32")(ids))
    assert type(theirs).__name__ == "ApertusForCausalLM" and np.abs(want).max() > 1
    assert np.abs(got - want).max() < 1e-4
    assert (got.argmax(-1) == want.argmax(-1)).all()


def test_greedy_continuations_are_theirs(pair, tokenizer):
    ours, theirs, folder = pair
    if ours.cfg.rope_table_dtype != "float32":
        found = huggingface.load(folder)
        cfg = dataclasses.replace(found.cfg, rope_table_dtype="float32")
        ours = Model.create(cfg, found.params, dtype="float32")
    prompt = tokenizer.render_for_completion({"messages": messages(CHATS[0])})
    with torch.no_grad():
        out = theirs.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)
    engine = Engine(ours, tokenizer, slots=1)
    done = engine.complete([prompt], 20, 0.0)[0]
    stops = {tokenizer.encode_special("<|assistant_end|>"), tokenizer.get_bos_token_id()}
    want = out[0, len(prompt) :].tolist()
    want = want[: next((i for i, t in enumerate(want) if t in stops), len(want))]
    assert [t for t in done.tokens if t not in stops][: len(want)] == want


def test_the_tokenizer_gives_our_ids(pair, tokenizer):
    theirs = transformers.AutoTokenizer.from_pretrained(pair[2])
    for text in TEXTS:
        if "<|" not in text:
            assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    assert theirs.bos_token_id == tokenizer.get_bos_token_id()
    assert len(theirs) == tokenizer.get_vocab_size()


@pytest.mark.parametrize("turns", CHATS)
def test_the_chat_template_gives_our_ids(turns, pair, tokenizer):
    theirs = transformers.AutoTokenizer.from_pretrained(pair[2])
    conversation = messages(turns)
    plain = theirs.apply_chat_template(conversation, tokenize=False)
    ids, _ = tokenizer.render_conversation({"messages": conversation}, 2048)
    assert theirs(plain, add_special_tokens=False)["input_ids"] == ids
    prompt = theirs.apply_chat_template(
        conversation[:-1], add_generation_prompt=True, return_dict=False
    )
    assert list(prompt) == tokenizer.render_for_completion({"messages": conversation})


def test_users_may_send_lists_of_parts(pair, tokenizer):
    theirs = transformers.AutoTokenizer.from_pretrained(pair[2])
    parts = [{"role": "user", "content": [{"type": "text", "text": "the cat"}]}]
    plain = [{"role": "user", "content": "the cat"}]
    render = lambda m: theirs.apply_chat_template(m, tokenize=False, add_generation_prompt=True)
    assert render(parts) == render(plain)


def test_what_transformers_saves_we_read(pair, tmp_path, tokenizer):
    ours, theirs, folder = pair
    theirs.save_pretrained(tmp_path / "again")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    found = huggingface.load(tmp_path / "again")
    assert found.tokenizer.hash == tokenizer.hash
    # Our own key may or may not outlive transformers; without it the tables are its own.
    theirs_cfg = dataclasses.replace(ours.cfg, rope_table_dtype="float32", softcap_dtype="float32")
    assert found.cfg in (ours.cfg, theirs_cfg)
    jax.tree.map(np.testing.assert_array_equal, found.params, dict(ours.params))
