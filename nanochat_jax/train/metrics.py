"""Numbers leave a run as one dict a step: to `metrics.jsonl`, TensorBoard, wandb."""

import importlib.util
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from nanochat_jax import files
from nanochat_jax.config.program import LOCAL_RUN
from nanochat_jax.config.stages import Stage
from nanochat_jax.config.values import flatten
from nanochat_jax.hosts import group


class MetricsWriter:
    """Writes `{"step": n, **numbers}` lines at once, and the same numbers to TensorBoard.

    Args:
        directory: the checkpoint directory; `metrics.jsonl` and the event files lie in it.
        resume_step: keep only what an uninterrupted run would have written before this step;
            None starts the file anew.
        evaluated: the values of `resume_step` itself were written before it was saved.
        wandb: a run of wandb's that the numbers go to as well.
    """

    def __init__(
        self, directory: pathlib.Path, *, resume_step: int | None = None,
        evaluated: bool = False, wandb: Any = None,
    ):  # fmt: skip
        # Imported here: it takes over a second, and whoever reads metrics need not wait for it.
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "metrics.jsonl"
        # What the resumed run is going to write again is dropped.
        written = lambda line: (
            line["step"] < resume_step
            or (evaluated and line["step"] == resume_step and not _of_step(line))
        )
        lines = read(self.path) if resume_step is not None else []
        files.write_json_lines(self.path, filter(written, lines))
        self._file = self.path.open("a")
        # One more file at each start: TensorBoard reads all that lie in a folder.
        self._board = EventFileWriter(str(directory), filename_suffix=f".{resume_step or 0}")
        self._wandb = wandb

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers go everywhere; texts (samples) to the JSON lines alone."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()  # a killed run shall not lose the steps that it died of
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        self._board.add_event(_event(step, numbers))
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def sync(self) -> None:
        """Hands the lines so far to the disk itself: a checkpoint after them counts on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


class Silent:
    """The writer of every process but the first: numbers are the same in all of them."""

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def writer(*args: Any, **settings: Any) -> MetricsWriter | Silent:
    """The run's writer: a `MetricsWriter` in process 0, one that writes nothing in the others."""
    return MetricsWriter(*args, **settings) if group.chief() else Silent()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl` up to one cut off by a kill; none when there is no file."""
    return files.read_json_lines(path)


def _of_step(line: Mapping[str, Any]) -> bool:
    """Whether a line tells of a step itself, not of what was measured before it."""
    return any(key.startswith("train/") for key in line)


def _event(step: int, numbers: Mapping[str, float]) -> Any:
    import time

    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=k, simple_value=v) for k, v in numbers.items()]
    return Event(step=step, wall_time=time.time(), summary=Summary(value=values))


def check_run_name(name: str) -> None:
    """Raises ValueError for a name that logs to wandb where that is not installed."""
    if name != LOCAL_RUN and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"--run {name} logs to wandb, which is not installed; get it with "
            "`pip install 'nanochat_jax[wandb]'`, or leave --run (and $WANDB_RUN) out"
        )


def signed_on(stage: str, config: Stage) -> Any:
    """The run of wandb's that this one's numbers go to; None: to disk alone, as in every process
    but the first.

    Raises:
        ValueError: wandb does not let it in.
    """
    if config.run == LOCAL_RUN or not group.chief():
        return None
    import wandb

    project = "nanochat" if stage == "base" else f"nanochat-{stage}"
    try:
        return wandb.init(project=project, name=config.run, config=flatten(config))
    except wandb.Error as error:
        raise ValueError(
            f"--run {config.run} logs to wandb, which refuses: {error}; type wandb login, or leave "
            "--run (and $WANDB_RUN) out"
        ) from error
