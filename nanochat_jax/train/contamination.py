"""`scripts.eval contamination`: which questions stand in what a model was trained on.

The questions are few and lie in memory, a hash for each run of words; the texts stream through, in
as many threads as there are cores (Arrow and NumPy let go of Python's lock).
"""

import concurrent.futures
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from tqdm import tqdm

from nanochat_jax.checkpoint import find_checkpoint
from nanochat_jax.config import paths
from nanochat_jax.config.errors import nearest
from nanochat_jax.config.evals import Contamination
from nanochat_jax.config.program import Eval
from nanochat_jax.devices import cpu_count
from nanochat_jax.evals import run as evals
from nanochat_jax.evals.chatcore.catalog import BASELINES
from nanochat_jax.evals.contamination import findings, passages
from nanochat_jax.evals.contamination.findings import Where
from nanochat_jax.evals.contamination.index import Index
from nanochat_jax.evals.contamination.passages import Sought
from nanochat_jax.evals.placing import in_flight
from nanochat_jax.results import CONTAMINATION, Section
from nanochat_jax.tasks import build_one
from nanochat_jax.train import was_read
from nanochat_jax.train.was_read import Batch, StageRead

TEXTS = 1024  # looked through at a time
RULE = (
    "Words are lower case, without punctuation. Questions with fewer words than that are looked "
    "for whole and counted apart, since short ones are met by chance. Source of the rule: GPT-3's "
    "appendix C, arXiv 2005.14165."
)


class Searched(NamedTuple):
    """What was found, by the index's numbers of rows, in how many texts and bytes."""

    found: dict[int, Where]
    texts: int = 0
    size: int = 0


def run(command: Contamination, root: pathlib.Path) -> Section:
    """The section of the report.

    Raises:
        ValueError: an unknown task; data that have changed since the run.
        FileNotFoundError: no such checkpoint, or nothing to look for.
    """
    step = command.step if command.step >= 0 else None
    saved = find_checkpoint(command.source, command.model_tag or None, step, root)
    as_eval = Eval(
        source=command.source, model_tag=saved.path.parent.name, step=saved.step,
        max_problems=command.max_problems, task_data=command.task_data,
    )  # fmt: skip
    tasks = sought(command.tasks, as_eval, root)
    index = Index({name: one.passages for name, one in tasks.items()}, command.ngram)
    read = list(was_read.stages(saved, root))
    searched = search(index, read, command.threads or cpu_count())
    answers = evals.answers_folder(as_eval, root)
    # Of the weights: `meta.json` is amended later, with the same model.
    since = (saved.path / "params").stat().st_mtime
    found = findings.of_tasks(tasks, index, searched.found, answers, since)
    examples = [line for one in found for line in one.examples()]
    told = [f"- {stage.title}: {stage.told}" for stage in read]
    return Section(
        CONTAMINATION[command.source],
        figures=saved.identity | {
            "words in a row": command.ngram, "texts searched": searched.texts,
            "bytes searched": searched.size,
        },
        checks=findings.checks(found),
        texts=[
            findings.table(found), RULE, "\n".join(["Searched:", "", *told]),
            "\n".join(["Found, for example:", "", *examples]) if examples else "",
        ],
    )  # fmt: skip


def sought(names: str, config: Eval, root: pathlib.Path) -> dict[str, Sought]:
    """What is looked for: the tasks named, or all whose rows are here or can be fetched.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the rows of a task that is named cannot be had; or there are none at all.
    """
    known = ["core", "ChatCORE", "probes", *BASELINES]
    named = [name for name in re.split(r"[|,\s]+", names) if name]
    for name in named:
        if name not in known:
            raise ValueError(f"unknown task {name!r}{nearest(name, known)}")
    world, bundle = evals.world_in_use(root), evals.core_bundle(config, root)
    chosen = named or (["probes"] * world + ["core"] * bundle.is_dir() + ["ChatCORE"])
    found: dict[str, Sought] = {}
    if "probes" in chosen:
        found |= passages.of_probes(paths.world_data(root))
    if "core" in chosen:
        found |= passages.of_core(bundle, config.max_problems)
    fetch = not config.task_data and (not world or "ChatCORE" in named)
    for name in BASELINES:
        if name in chosen or "ChatCORE" in chosen:
            try:
                found[name] = _chat_task(name, config, root, fetch or name in named)
            except FileNotFoundError:
                if name in named:
                    raise
    if not any(one.passages for one in found.values()):
        raise FileNotFoundError(f"no question to look for: {_advice(named, root)}")
    return found


def _advice(named: Sequence[str], root: pathlib.Path) -> str:
    """What to do where nothing of what was asked for is here."""
    if named == ["probes"]:
        return (
            f"the probes are of the demo's world, and {paths.world_data(root)} holds none; leave "
            "-a probes out, or make it: python -m scripts.speedrun"
        )
    return (
        "name a folder of task files with --task-data DIR, or put CORE's tasks into "
        f"{paths.eval_bundle(root)}"
    )


def _chat_task(name: str, config: Eval, root: pathlib.Path, fetch: bool) -> Sought:
    task = build_one(name, root, task_data=config.task_data or None, fetch=fetch)
    most = config.max_problems
    return passages.of_chat(task.view(stop=most) if most > 0 else task, name)


def search(index: Index, read: Sequence[StageRead], threads: int) -> Searched:
    """Looks for everything in all that was read; of each row the longest run counts, and the first
    of those."""
    found: dict[int, Where] = {}
    texts = size = 0
    total = sum(stage.count for stage in read)
    with (
        concurrent.futures.ThreadPoolExecutor(threads) as pool,
        tqdm(total=total, unit="text", desc="looked through", leave=None, delay=2) as bar,
    ):
        batches = was_read.all_batches(read)
        started = (pool.submit(_look, index, stage, batch) for stage, batch in batches)
        # A few at a time, in their order: memory stays small, and what is shown is always the same.
        for done in in_flight(started, 2 * threads):
            some = done.result()
            for row, where in some.found.items():
                if row not in found or where.length > found[row].length:
                    found[row] = where
            texts, size = texts + some.texts, size + some.size
            bar.update(some.texts)
    return Searched(found, texts, size)


def _look(index: Index, stage: StageRead, batch: Batch) -> Searched:
    found: dict[int, Where] = {}
    texts = batch.texts()
    # A shard of one's own may be a single group of a gigabyte.
    for first in range(0, len(texts), TEXTS):
        for hit in index.find(texts.slice(first, TEXTS)):
            if hit.row not in found or hit.length > found[hit.row].length:
                place = f"{stage.title}: {batch.name(first + hit.text)}"
                found[hit.row] = Where(index.quoted(hit), hit.length, place)
    return Searched(found, len(texts), texts.nbytes)
