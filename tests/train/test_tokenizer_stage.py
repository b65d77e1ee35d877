"""The tokenizer stage: what it reads, and by what it is known to be done."""

import json

import pytest

from nanochat_jax.config.stages import TokenizerTrain
from nanochat_jax.data import shards
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train import tokenizer


def shard(root, number):
    texts = [f"shard {number}, document {i}: the river in the valley" for i in range(40)]
    shards.write_shard(root / "base_data" / shards.shard_name(number), texts)


def test_it_is_the_same_whichever_shards_came_beside_those_it_reads(tmp_path):
    config = TokenizerTrain(vocab_size=280, num_shards=2)
    for number in range(3):
        shard(tmp_path, number)
    first = tokenizer.run(config, tmp_path).figures["hash"]
    for number in range(3, 6):
        shard(tmp_path, number)
    assert tokenizer.fingerprint(config, tmp_path) == tokenizer.done(tmp_path)
    assert tokenizer.run(config, tmp_path).figures["hash"] == first
    everything = TokenizerTrain(vocab_size=280)
    assert len(tokenizer.fingerprint(everything, tmp_path)["shards"]) == 5


def test_a_model_keeps_the_tokenizer_that_it_was_trained_with(tmp_path):
    for number in range(2):
        shard(tmp_path, number)
    tokenizer.run(TokenizerTrain(vocab_size=280), tmp_path)
    first = Tokenizer.load(tmp_path / "tokenizer")
    runs = [tmp_path / "base_checkpoints" / name for name in ("d1", ".old/d1-1", "other")]
    for run in runs:
        (run / "000002").mkdir(parents=True)
        theirs = first.hash if run.name != "other" else "another"
        (run / "000002" / "meta.json").write_text(json.dumps({"tokenizer_hash": theirs}))
    tokenizer.run(TokenizerTrain(vocab_size=280), tmp_path)  # the same again: nothing to keep
    assert not (runs[0] / "tokenizer").exists()
    tokenizer.run(TokenizerTrain(vocab_size=275), tmp_path)
    assert Tokenizer.load(tmp_path / "tokenizer").hash != first.hash
    assert [(run / "tokenizer").exists() for run in runs] == [True, True, False]
    assert Tokenizer.load(runs[0] / "tokenizer").hash == first.hash


@pytest.mark.parametrize("number", [0, -2])
def test_a_number_of_shards_that_is_none_is_refused(number):
    with pytest.raises(ValueError, match=f"num_shards is {number}; set it to 1 or more"):
        TokenizerTrain(num_shards=number)
