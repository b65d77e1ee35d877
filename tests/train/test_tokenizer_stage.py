"""The tokenizer stage: what it reads, and by what it is known to be done."""

import pytest

from nanochat_jax.config.stages import TokenizerTrain
from nanochat_jax.data import shards
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


@pytest.mark.parametrize("number", [0, -2])
def test_a_number_of_shards_that_is_none_is_refused(number):
    with pytest.raises(ValueError, match=f"num_shards is {number}; set it to 1 or more"):
        TokenizerTrain(num_shards=number)
