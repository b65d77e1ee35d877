"""Where a run begins and where its checkpoints go: at its own last checkpoint, from another's
weights, or from nothing."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from nanochat_jax.checkpoint import aside, find_checkpoint, load_tokenizer, store, whole
from nanochat_jax.checkpoint.aside import Aside
from nanochat_jax.checkpoint.prune import SOURCE, source_of
from nanochat_jax.config import paths, values
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.stages import BaseTrain, Stage
from nanochat_jax.data import ledger
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The checkpoints that a run stands on.

    `source` is the one whose weights the stage started from (None: drawn anew), `resumed` the
    stage's own that it continues. A resumed chat run knows both: its fingerprint names its source.
    """

    source: store.Saved | None = None
    resumed: store.Saved | None = None

    @property
    def saved(self) -> store.Saved | None:
        """The checkpoint whose weights the run begins with."""
        return self.resumed or self.source

    @property
    def data(self) -> Mapping[str, Any] | None:
        """The data that a resumed run began with; None: it is new, or its checkpoint is old."""
        return self.resumed.meta.get("data") if self.resumed else None

    @property
    def micro_rows(self) -> int | None:
        """Rows of a micro-batch of the run that goes on; None: it is new."""
        return ledger.micro_rows(self.resumed.meta) if self.resumed else None

    def model_config(self) -> GPTConfig | None:
        return self.saved.cfg if self.saved else None

    def tokenizer(self, root: pathlib.Path) -> Tokenizer:
        """The tokenizer that the weights were trained with, else the base directory's."""
        saved = self.saved
        return load_tokenizer(saved, root) if saved else Tokenizer.load(paths.tokenizer(root))

    def tag(self, config: Stage) -> str:
        """The name of the run's checkpoint directory."""
        start = self.source.path.parent.name if self.source else ""
        return config.model_tag or start or f"d{config.depth}"


def find(stage: str, config: Stage, root: pathlib.Path) -> Origin:
    """What `--resume`, `--init` or the stage before it give a run to begin with. Reads no arrays.

    A damaged step is not gone on from: the last whole one is, unless a step was named.

    Raises:
        FileNotFoundError: there is none; the message names the command that makes it.
        ValueError: `--resume` and `--init` together, or no step to resume that is whole.
    """
    resuming = config.resume or config.resume_from_step >= 0
    if resuming and config.init:
        raise ValueError("--resume continues this stage, --init starts it elsewhere: give one")
    source = None
    if config.init:
        source = store.find(pathlib.Path(config.init).expanduser())
    elif not isinstance(config, BaseTrain):
        step = config.step if config.step >= 0 else None
        try:
            source = find_checkpoint(config.source, config.model_tag or None, step, root)
        except FileNotFoundError:
            # A run that began with --init may have none under its own tag, and needs none.
            if not (resuming and config.model_tag):
                raise
    # Found also where a run is resumed and its weights are not read: it names the run's folder and
    # is part of its fingerprint.
    start = Origin(source)
    if not resuming:
        return start
    at, folder = config.resume_from_step, directory(stage, start.tag(config), root)
    if at < 0:
        whole.set_damaged_aside(folder)
    return Origin(source, store.find(folder, at if at >= 0 else None))


def check_order(config: Stage, start: Origin) -> None:
    """Raises ValueError where a run that goes on would read its data in another order: a loader's
    position means nothing to another one."""
    began = (start.resumed.meta.get("config") or {}) if start.resumed else {}
    for name in ("loader", "loader_ranks", "packing"):
        then, now = began.get(name), vars(config).get(name)
        if then not in (None, now):
            raise ValueError(
                f"--{name.replace('_', '-')} is {now}, but the run began with {name} {then}, and "
                "its position in the data is one of that order; leave the flag out, or begin anew "
                "without --resume"
            )


def source(start: Origin, root: pathlib.Path) -> dict[str, Any] | None:
    """What the run's checkpoints say of the step that it was born from, which stays while they are
    here. Asked before the run begins: it may move that step out of its own way."""
    if start.resumed is not None and SOURCE in start.resumed.meta:
        return start.resumed.meta[SOURCE]
    return source_of(root, start.source) if start.source is not None else None


def directory(stage: str, tag: str, root: pathlib.Path) -> pathlib.Path:
    """Where a run of that name keeps its checkpoints and metrics."""
    return paths.checkpoints(root, stage) / tag


def make_room(start: Origin, folder: pathlib.Path) -> Aside | None:
    """Moves what is in a new run's way to `.old`, an earlier run or its later steps, and prunes
    that; returns what was moved."""
    resumed = start.resumed
    moved = aside.move(folder) if resumed is None else aside.move_later(folder, resumed.step)
    if moved is not None:
        what = f"an earlier run was in {folder}"
        if resumed is not None:
            what = f"steps {', '.join(map(str, moved.steps))} of {folder} came after step "
            what += f"{resumed.step}, from which this run goes on"
        log.warning("%s; now in %s (back with: %s)", what, moved.path, moved.back)
        for gone in aside.prune(folder.parents[1]):
            log.info("removed %s: it never ended, and of those moved aside the newest %d stay",
                     gone.name, aside.KEEP)  # fmt: skip
    return moved


# What the parent was trained on: its own fingerprint does not say. Earlier versions left it out.
PARENT_DATA = "parent_data"


def fingerprint(config: Stage, start: Origin, tokenizer: Tokenizer) -> dict[str, Any]:
    """What decides the result of a stage: its settings and what it begins with. JSON values."""
    # The parent's own fingerprint is part of it, so that a change anywhere upstream shows here. A
    # run that goes on has the parent that it began with, whatever lies in that place now.
    own = start.resumed.meta.get("fingerprint") if start.resumed else None
    parent = start.source.meta.get("fingerprint") if start.source else None
    digest = values.digest(parent) if parent is not None else None
    digest = own.get("parent") if own else digest
    found = values.fingerprint(config) | {"tokenizer": tokenizer.hash, "parent": digest}
    data = ledger.digest_of(start.source.meta) if start.source else None
    if data := own.get(PARENT_DATA) if own else data:
        found |= {PARENT_DATA: data}
    # Rows of a pass may change where a run goes on; what decides its data and losses does not.
    return found | ({"device_batch_size": start.micro_rows} if start.micro_rows else {})
