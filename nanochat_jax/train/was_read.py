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

from nanochat_jax.checkpoint import adapters, manifest, store
from nanochat_jax.checkpoint.prune import SOURCE
from nanochat_jax.config.stages import STAGES, BaseTrain, RLTrain
from nanochat_jax.data import ledger, shards
from nanochat_jax.data.chats import following
from nanochat_jax.data.documents import Position
from nanochat_jax.evals.contamination.passages import text_of
from nanochat_jax.tasks import Mixture
from nanochat_jax.train import chat, rollouts, sources
from nanochat_jax.train.trace import config_of

TOGETHER = 1024  # chats of a batch, as many as documents in a row group
ALL = " (how far it came is not told, so all are taken)"
State = Item = Mapping[str, Any]


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
    seen: set[pathlib.Path] = set()
    while at is not None:
        seen.add(at.path.resolve())
        yield _stage(at, root)
        born = at.meta.get(SOURCE)
        at = _parent(born, root, seen) if born else None
        if born and at is None:
            path = str(root / born["path"])
            yield StageRead(path, "is gone, and what it was trained on is not known")


def _parent(born: State, root: pathlib.Path, seen: set[pathlib.Path]) -> store.Saved | None:
    """The step that another was born from, where it was or moved aside; None: it is gone."""
    # Below the base directory, which may have been moved, or anywhere else.
    wanted, digest = (root / born["path"]).resolve(), born.get("digest")
    if digest:
        there = adapters.places(wanted, wanted.parent.parent)
        found = (path for path in there if adapters.digest_of(path) == digest)
    else:  # of an earlier version, which did not tell one model in that place from another
        found = (path for path in [wanted] if (path / manifest.META).exists())
    # A run may have moved the step that it was born from out of its place, and taken that itself.
    match = next((path for path in found if path not in seen), None)
    return store.find(match) if match else None


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
    # The replies of RL are the model's own: of a question it is shown what was asked alone.
    told = _question if isinstance(config, RLTrain) else _chat_text
    found = _chats(title, mixture, taken, told)
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
    return [doc for doc in range(stop) if doc not in waiting] if waiting else range(stop)


def taken_chats(streams: Sequence[State] | None, size: int) -> Sequence[int]:
    """The numbers of a mixture of `size` that were taken into rows; all where there is no
    position."""
    if streams is None:
        return range(size)
    times: collections.Counter[int] = collections.Counter()
    for rank, state in enumerate(streams):
        times.update(_walked(state, size, rank, len(streams)))
        times.subtract(state.get("buffer", ()))  # taken, and in no row yet
    return sorted(i for i, count in times.items() if count > 0)


def _walked(state: State, size: int, rank: int, ranks: int) -> Iterator[int]:
    """The items that a rank's cursor has taken, as often as it has."""
    last_at, last_epoch = state["cursor"]
    at, epoch = rank % size, 1
    first = at if "taken" in state else None  # padded rows: each pass begins where the first did
    while (epoch, at) < (last_epoch, last_at):
        yield at
        at, epoch = following(at, epoch, size, ranks, first)


def _chats(
    title: str, mixture: Mixture, taken: Sequence[int], told: Callable[[Item], str]
) -> StageRead:  # fmt: skip
    named = sources.chats(mixture)
    batches = []
    for few in (taken[i : i + TOGETHER] for i in range(0, len(taken), TOGETHER)):
        texts = functools.partial(_chat_texts, mixture, few, told)
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


def _chat_texts(
    mixture: Mixture, indices: Sequence[int], told: Callable[[Item], str]
) -> pa.Array:  # fmt: skip
    return pa.array([told(mixture[i]) for i in indices], pa.string())


def _chat_text(item: Item) -> str:
    """All that is said in a conversation, or the text of a document in a mixture."""
    if "text" in item:
        return item["text"]
    return " ".join(text_of(message["content"]) for message in item["messages"])


def _question(item: Item) -> str:
    """What is said before the answer."""
    return " ".join(text_of(message["content"]) for message in item["messages"][:-1])


def all_batches(read: Sequence[StageRead]) -> Iterator[tuple[StageRead, Batch]]:
    """Every batch with its stage."""
    return itertools.chain.from_iterable(zip(itertools.repeat(s), s.batches) for s in read)
