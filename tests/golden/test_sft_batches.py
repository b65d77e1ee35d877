"""The chat loaders give the original's batches, rank by rank, and report progress as it does."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from nanochat_jax.data.chats import MAX_TOKENS, mid_loader, sft_loader
from tests.golden.conftest import era_of, files, load_npz
from tests.golden.task_files import golden_mixture, golden_sequence
from tests.golden.tokenizers import golden_tokenizer

CASE = re.compile(r"(?P<kind>sft|mid)\.(.*\.)?world(?P<world>\d+)\.rank(?P<rank>\d+)")


def cases(kind: str, eras: tuple[str, ...]) -> list:
    """A parameter (path, case) for each rank's run of that kind of loader."""
    found = []
    for p in files("sft_batches_*.npz"):
        path = p.values[0]
        if path is None or era_of(path) in eras:
            names = sorted({m[0] for k in load_npz(path) if (m := CASE.match(k))}) if path else []
            chosen = [n for n in names if n.startswith(kind)] if path else ["absent"]
            found += [pytest.param(path, n, id=f"{p.id}/{n}", marks=p.marks) for n in chosen]
    return found


def items(path: Path, split: str):
    """The conversations of a split: the mixture (train) or the sequence (val) of the tasks file."""
    suffix = path.stem.removeprefix("sft_batches_")
    beside = sorted(path.parent.glob(f"tasks_{suffix}.json")) or sorted(
        path.parent.glob("tasks_*.json")
    )
    return golden_mixture(beside[0]) if split == "train" else golden_sequence(beside[0])


def pulls(loader, case: str):
    """The micro-batches of the case's rank."""
    match = CASE.fullmatch(case)
    return (b for i, b in enumerate(loader) if i % int(match["world"]) == int(match["rank"]))


def world(case: str) -> int:
    return int(CASE.fullmatch(case)["world"])


@pytest.mark.parametrize(("path", "case"), cases("sft", ("classic",)))
def test_a_conversation_a_row_padded_to_the_longest(path, case):
    data, tokenizer = load_npz(path), golden_tokenizer(path.parent)
    rows = load_npz(path)["meta.json"]["sft"]["batch_size"]
    loader = sft_loader(
        items(path, "train"), tokenizer, rows, MAX_TOKENS, ranks=world(case), bucket=1, prefetch=0
    )
    steps = sum(k.startswith(f"{case}.step") and k.endswith(".inputs") for k in data)
    assert steps > 0
    for step, batch in enumerate(itertools.islice(pulls(loader, case), steps)):
        for name in ("inputs", "targets"):
            np.testing.assert_array_equal(getattr(batch, name), data[f"{case}.step{step}.{name}"])


@pytest.mark.parametrize(("path", "case"), cases("mid", ("classic",)))
def test_a_stream_of_conversations(path, case):
    data, tokenizer = load_npz(path), golden_tokenizer(path.parent)
    settings, split = data["meta.json"]["mid"], case.split(".")[1]
    shape = settings["device_batch_size"], settings["max_seq_len"]
    loader = mid_loader(items(path, split), tokenizer, *shape, ranks=world(case), prefetch=0)
    expected = data["meta.json"][case]["last_step_and_progress_per_step"]
    for step, batch in enumerate(itertools.islice(pulls(loader, case), len(expected))):
        for name in ("inputs", "targets"):
            np.testing.assert_array_equal(getattr(batch, name), data[f"{case}.{name}"][step])
        if split == "train":  # the original has none of validation
            assert [batch.last, batch.progress] == expected[step]


@pytest.mark.parametrize(("path", "case"), cases("sft", ("current",)))
def test_whole_conversations_packed_best_fit(path, case):
    data, tokenizer = load_npz(path), golden_tokenizer(path.parent)
    settings, split = data["meta.json"][case], case.split(".")[1]
    shape = settings["device_batch_size"], settings["max_seq_len"]
    loader = sft_loader(
        items(path, split), tokenizer, *shape, kind="bestfit", ranks=world(case),
        buffer_size=settings["buffer_size"], prefetch=0,
    )  # fmt: skip
    expected = settings["last_step_progress_epoch_per_step"]
    for step, batch in enumerate(itertools.islice(pulls(loader, case), len(expected))):
        for name in ("inputs", "targets"):
            np.testing.assert_array_equal(getattr(batch, name), data[f"{case}.{name}"][step])
        if split == "train":
            assert [batch.last, batch.progress, batch.epoch] == expected[step]
