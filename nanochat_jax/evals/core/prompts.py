"""From a row to the tokens that are scored: solved examples, prompts, spans. Pure.

Source: nanochat `nanochat/core_eval.py`; the texts, ids and spans are the original's.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nanochat_jax.evals.core.bundle import CoreTask, Item
from nanochat_jax.tokenizer import Tokenizer

SHOT_SEED = 1234


class Row(NamedTuple):
    """A prompt's ids, of which those from `start` up to (not with) `end` are scored."""

    ids: np.ndarray
    start: int
    end: int


class Example(NamedTuple):
    """A question ready for the model."""

    rows: tuple[Row, ...]  # one per option; of a language-modeling question the only one
    gold: int  # the right option; 0 for language modeling
    cropped: bool = False  # its beginning was cut off to fit
    mended: bool = False  # a span was empty or began at the first token; see `mended`


def shot_indices(i: int, n: int, shots: int) -> list[int]:
    """The solved examples of question `i` of `n`, as the original draws them.

    Where fewer than `shots` other questions exist (the original stops there) all of them, shuffled.
    """
    # A generator a question: the examples do not depend on which questions are scored, or where.
    drawn = random.Random(SHOT_SEED + i).sample(range(n - 1), min(shots, n - 1))
    return [j + (j >= i) for j in drawn]


def render(task: CoreTask, item: Item, shots: Sequence[Item]) -> list[str]:
    """The prompts of a question.

    One per option; of a language-modeling question one without and one with its continuation.
    """
    before = "".join(_solved(task, shot) + "\n\n" for shot in shots)
    prompts = [before + task.delimiter.join(pair) for pair in _pairs(task.kind, item)]
    if task.kind == "language_modeling":
        # A trailing blank would be a token of its own, which the whole prompt does not have.
        open_end = before + item["context"].strip() + task.delimiter
        return [open_end.strip(), *prompts]
    return prompts


def _pairs(kind: str, item: Item) -> list[tuple[str, str]]:
    """(context, continuation) of each option."""
    if kind == "multiple_choice":
        return [(item["query"], choice) for choice in item["choices"]]
    if kind == "schema":
        return [(option, item["continuation"]) for option in item["context_options"]]
    return [(item["context"].strip(), item["continuation"])]


def _solved(task: CoreTask, shot: Item) -> str:
    """A question with its answer."""
    pairs = _pairs(task.kind, shot)
    return task.delimiter.join(pairs[shot["gold"] if len(pairs) > 1 else 0])


def spans(kind: str, prompts: Sequence[Sequence[int]]) -> list[Row]:
    """The rows to score, from the ids of what `render` gave.

    Multiple choice scores what follows the ids that all options begin with, schema the ids that
    all end with, language modeling what follows the prompt without its continuation (should the
    tokens not agree there, what follows the last that do).
    """
    # Compared as tokens, not as texts: an option may merge with the blank before it, and only what
    # the rows do not share can tell the options apart.
    ids = [np.asarray(prompt, np.int32) for prompt in prompts]
    if kind == "multiple_choice":
        start = common_prefix(ids)
        return [Row(row, start, len(row)) for row in ids]
    if kind == "schema":
        # The options are the contexts: what is scored is the continuation that all of them share.
        length = common_suffix(ids)
        return [Row(row, len(row) - length, len(row)) for row in ids]
    _, whole = ids
    return [Row(whole, common_prefix(ids), len(whole))]


def common_prefix(rows: Sequence[np.ndarray]) -> int:
    """How many ids all rows begin with."""
    shortest = min(map(len, rows))
    same = np.ones(shortest, bool)
    for row in rows[1:]:
        same &= rows[0][:shortest] == row[:shortest]
    return shortest if same.all() else int(same.argmin())


def common_suffix(rows: Sequence[np.ndarray]) -> int:
    """How many ids all rows end with."""
    return common_prefix([row[::-1] for row in rows])


def cropped(row: Row, limit: int) -> Row:
    """The last `limit` ids of a row, its span moved with them."""
    # From the beginning, where the solved examples stand: the question itself is at the end.
    cut = max(0, len(row.ids) - limit)
    return Row(row.ids[cut:], row.start - cut, row.end - cut)


def mended(kind: str, rows: Sequence[Row]) -> list[Row]:
    """Rows whose spans can be scored: none is empty, and none begins at the first token.

    Where one option's ids begin another's, nothing of it is left to score (the original takes the
    mean of nothing there): each span then begins a token earlier, at one that all share. A
    language-modeling question without a continuation stays empty, and counts as wrong.
    """
    # The first token has none before it that could predict it.
    rows = [row._replace(start=max(1, row.start)) for row in rows]
    if kind == "language_modeling" or all(row.start < row.end for row in rows):
        return rows
    return [row._replace(start=max(1, row.start - 1)) for row in rows]


def examples(
    task: CoreTask, items: Sequence[Item], chosen: Sequence[int], tokenizer: Tokenizer, limit: int,
    blind: bool = False,
) -> list[Example]:  # fmt: skip
    """The questions `chosen` (by index) of a task, at most `limit` ids a row.

    `blind`: each without its own text, of multiple choice; the solved examples keep theirs.
    """
    asked = lambda item: {**item, "query": ""} if blind else item
    texts = [
        render(task, asked(items[i]), [items[j] for j in shot_indices(i, len(items), task.shots)])
        for i in chosen
    ]
    # One call for all texts: the tokenizer works on them side by side, in Rust.
    flat = tokenizer.encode([t for row in texts for t in row], tokenizer.get_bos_token_id())
    ids = iter(flat)
    return [
        _example(task.kind, [next(ids) for _ in row], items[i].get("gold", 0), limit)
        for i, row in zip(chosen, texts, strict=True)
    ]


def _example(kind: str, prompts: Sequence[Sequence[int]], gold: int, limit: int) -> Example:
    whole = spans(kind, prompts)
    short = [cropped(row, limit) for row in whole]
    ready = mended(kind, short)
    moved = any(a.start != b.start for a, b in zip(short, ready, strict=True))
    longer = any(len(a.ids) > limit for a in whole)
    return Example(tuple(ready), gold, longer, moved or any(r.start >= r.end for r in ready))
