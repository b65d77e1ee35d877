"""Conversations longer than a row: no mixture of lengths stops a run or empties a micro-batch."""

import itertools

import pytest

from nanochat_jax.data.chats import sft_loader
from nanochat_jax.tokenizer import Tokenizer

T = 24
PULLS = 150  # beyond a pass of any mixture below, on each rank


class Lengths:
    """Conversations whose answers have so many words."""

    def __init__(self, *words: int):
        self.words = words

    def __len__(self):
        return len(self.words)

    def __getitem__(self, i):
        answer = {"role": "assistant", "content": "cat " * self.words[i]}
        return {"messages": [{"role": "user", "content": "hi"}, answer]}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the cat sat on the mat"] * 3, 280)


# Odd numbers of conversations: so every rank meets each of them in time.
MIXTURES = {
    "one in eight fits": Lengths(*([200] * 7 + [2]) * 5, 200),
    "one fits, last of all": Lengths(*[200] * 60, 2),
    "most fit": Lengths(*([2, 3, 4, 5, 200] * 6), 1),
    "exactly a row, and one more": Lengths(*range(1, 30)),
}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("name", MIXTURES)
def test_every_micro_batch_teaches_something_pass_after_pass(name, ranks, tokenizer):
    loader = sft_loader(
        MIXTURES[name], tokenizer, 2, T, kind="bestfit", buffer_size=5, ranks=ranks, prefetch=0
    )
    for batch in itertools.islice(loader, PULLS):
        assert (batch.targets >= 0).any()
    assert batch.last


def test_a_mixture_far_longer_than_the_buffer_may_hold_only_one_that_fits(tokenizer):
    items = Lengths(*[200] * 3000, 2)
    loader = sft_loader(items, tokenizer, 1, T, kind="bestfit", buffer_size=2, prefetch=0)
    assert (next(iter(loader)).targets >= 0).any()


def test_the_number_left_out_is_logged_each_time_it_has_doubled(tokenizer, caplog):
    items = Lengths(*([200] * 6 + [2]) * 5)
    loader = sft_loader(items, tokenizer, 2, T, kind="bestfit", buffer_size=5, prefetch=0)
    assert len(list(itertools.islice(loader, 40))) == 40
    counts = [int(r.message.split()[0]) for r in caplog.records if "left out" in r.message]
    assert len(counts) >= 2 and all(b >= 2 * a for a, b in itertools.pairwise(counts))
