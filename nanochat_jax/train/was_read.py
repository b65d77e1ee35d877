"""The texts that a model was trained on: by what its checkpoint, and each that it was born from,
says of its data and of the place that it had come to in them.

Base runs read shards in their order, chat runs a mixture; both can end before the end of either.
What a row had no room for is counted as read: where documents are packed (`--loader bestfit`) the
ends of long ones were not.
"""

import collections
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from nanochat_jax.checkpoint import store
from nanochat_jax.checkpoint.prune import SOURCE
from nanochat_jax.config.stages import STAGES, BaseTrain, RLTrain
from nanochat_jax.data import ledger, shards
from nanochat_jax.data.documents import Position
from nanochat_jax.evals.contamination.passages import text_of
from nanochat_jax.tasks import Mixture
from nanochat_jax.train import chat, rollouts, sources
from nanochat_jax.train.trace import config_of

TOGETHER = 1024  # chats of a batch, as many as documents in a row group
ALL = " (how far it came is not told, so all are taken)"
State = Mapping[str, Any]


class Batch(NamedTuple):
    """Some texts: `texts()` reads them, in any thread; `name(i)` says where the i-th is from."""

    count: int
    texts: Callable[[], pa.Array]
    name: Callable[[int], str]


@dataclasses.dataclass(frozen=True)
class StageRead:
    """What one stage has read: `told` is for people; without batches it is not known."""

    title: str
    told: str
    batches: Sequence[Batch] = ()

    @property
    def count(self) -> int:
        return sum(batch.count for batch in self.batches)


def stages(saved: store.Saved, root: pathlib.Path) -> Iterator[StageRead]:
    """What was read for a checkpoint, its own stage first.

    Raises:
        ValueError: shards or files have changed since, or are gone; the message names them.
        FileNotFoundError: rows of the mixture are not here any more.
    """
    at: store.Saved | None = saved
    while at is not None:
        yield _stage(at, root)
        born = (at.meta.get(SOURCE) or {}).get("path")
        # Below the base directory, which may have been moved, or anywhere else.
        path = root / born if born else None
        at = store.find(path) if path and path.is_dir() else None
        if path and at is None:
            yield StageRead(str(path), "is gone, and what it was trained on is not known")


def _stage(saved: store.Saved, root: pathlib.Path) -> StageRead:
    stage, recorded = saved.meta.get("stage"), saved.meta.get("data")
    title = f"{stage or 'a model'} {saved.path.parent.name}, step {saved.step}"
    if not recorded or stage not in STAGES:
        why = "brought in from elsewhere" if saved.meta.get("imported") else "of an earlier version"
        return StageRead(title, f"{why}: what it was trained on is not known")
    config = config_of(stage, saved.meta)
    if isinstance(config, BaseTrain):
        return _documents(title, saved, recorded, root)
    if isinstance(config, RLTrain):
        mixture = rollouts.Questions(
            config.mixture, root, "train", config.task_data or None
        ).mixture
        taken: Sequence[int] = range(min(len(mixture), saved.step * config.examples_per_step))
    else:
        mixture = chat.mixture(config, root, "train")
        taken = taken_chats(_streams(saved), len(mixture))
    _check_files(mixture, chat.files(config, root), recorded, root)
    found = _chats(title, mixture, taken)
    everything = not isinstance(config, RLTrain) and _streams(saved) is None
    return dataclasses.replace(found, told=found.told + ALL * everything)


def _streams(saved: store.Saved) -> Sequence[State] | None:
    """The positions of the loader's ranks; None: the checkpoint has none."""
    return (saved.loader or {}).get("streams")


def _documents(
    title: str, saved: store.Saved, recorded: State, root: pathlib.Path
) -> StageRead:  # fmt: skip
    data, streams = ledger.same_shards(root, recorded), _streams(saved)
    named = sources.documents(data, recorded["train"])
    batches, total = [], 0
    for file, path in enumerate(data.train):
        with shards.open_shard(path) as opened:
            sizes = shards.group_sizes(opened)
        total += sum(sizes)
        for group, size in enumerate(sizes):
            if docs := taken_documents(streams, file, group, size):
                texts = functools.partial(_texts_of, path, group, docs)
                name = functools.partial(_name_of, named, file, group, docs)
                batches.append(Batch(len(docs), texts, name))
    found = StageRead(title, "", batches)
    told = f"{found.count:,} of {total:,} documents in {len(data.train)} shards of {data.source}"
    return dataclasses.replace(found, told=told + ALL * (streams is None))


def taken_documents(
    streams: Sequence[State] | None, file: int, group: int, size: int
) -> Sequence[int]:
    """The documents of a row group of `size` that were taken into rows; all of them where there is
    no position."""
    if streams is None:
        return range(size)
    state = streams[group % len(streams)]  # of the rank that reads this group
    at = Position(*(state["at"] if "at" in state else state["next"]))
    if at.epoch > 1 or (file, group) < (at.file, at.group):
        stop = size
    elif (file, group) == (at.file, at.group):
        stop = min(size, at.doc + (state.get("skip", 0) > 0))  # a document that has begun is taken
    else:
        return ()
    waiting = {doc for *place, doc in state.get("buffer", ()) if place == [1, file, group]}
    return [doc for doc in range(stop) if doc not in waiting]


def taken_chats(streams: Sequence[State] | None, size: int) -> Sequence[int]:
    """The numbers of a mixture of `size` that were taken into rows; all where there is no
    position."""
    if streams is None:
        return range(size)
    taken: list[int] = []
    for rank, state in enumerate(streams):
        at, epoch = state["cursor"]
        waiting = collections.Counter(state.get("buffer", ()))  # taken, and in no row yet
        times = lambda i, at=at, epoch=epoch: epoch - 1 + (i < at)
        taken += (i for i in range(rank, size, len(streams)) if times(i) > waiting[i])
    return sorted(taken)


def _chats(title: str, mixture: Mixture, taken: Sequence[int]) -> StageRead:
    named = sources.chats(mixture)
    batches = []
    for few in (taken[i : i + TOGETHER] for i in range(0, len(taken), TOGETHER)):
        texts = functools.partial(_chat_texts, mixture, few)
        batches.append(Batch(len(few), texts, lambda i, few=few: str(named(few[i]))))
    names = ", ".join(dict.fromkeys(task.name for task in mixture.tasks))
    return StageRead(title, f"{len(taken):,} of {len(mixture):,} rows of {names}", batches)


def _check_files(
    mixture: Mixture, files: Sequence[pathlib.Path], recorded: State, root: pathlib.Path
) -> None:
    ledger.check_mixture(mixture, recorded)
    if changed := ledger.new_files(files, root, recorded)[0]:
        raise ValueError(
            f"{next(iter(changed)).removeprefix('data ')} has changed since the run read it; put "
            "it back as it was"
        )


def _texts_of(path: pathlib.Path, group: int, docs: Sequence[int]) -> pa.Array:
    with shards.open_shard(path) as file:
        texts = pa.concat_arrays(shards.group_column(file, path, group).chunks)
    return texts if len(docs) == len(texts) else texts.take(pa.array(docs, pa.int64()))


def _name_of(
    named: Callable[[Position], Any], file: int, group: int, docs: Sequence[int], i: int
) -> str:
    return str(named(Position(1, file, group, docs[i])))


def _chat_texts(mixture: Mixture, indices: Sequence[int]) -> pa.Array:
    return pa.array([_chat_text(mixture[i]) for i in indices], pa.string())


def _chat_text(item: Mapping[str, Any]) -> str:
    """All that is said in a conversation, or the text of a document in a mixture."""
    if "text" in item:
        return item["text"]
    return " ".join(text_of(message["content"]) for message in item["messages"])


def all_batches(read: Sequence[StageRead]) -> Iterator[tuple[StageRead, Batch]]:
    """Every batch with its stage."""
    return itertools.chain.from_iterable(zip(itertools.repeat(s), s.batches) for s in read)
