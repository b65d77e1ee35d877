"""All the scores of one stage: what `scripts.eval` and the speedrun run."""

import dataclasses
import functools
import logging
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from nanochat_jax import sharding
from nanochat_jax.checkpoint import guess_tag, load_model
from nanochat_jax.config.errors import nearest
from nanochat_jax.config.evaluate import Eval
from nanochat_jax.config.paths import CHECKPOINTS
from nanochat_jax.config.stages import SAMPLE_PROMPTS
from nanochat_jax.data import shards
from nanochat_jax.data.loader import pretraining_loader
from nanochat_jax.evals import core, probes, samples
from nanochat_jax.evals.bpb import bits_per_byte
from nanochat_jax.evals.chatcore import catalog, section
from nanochat_jax.evals.chatcore.catalog import BASELINES
from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine import Engine
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

TITLES = {
    "tokenizer": "Tokenizer evaluation", "base": "Base model evaluation",
    "mid": "Chat evaluation mid", "sft": "Chat evaluation sft", "rl": "Chat evaluation rl",
}  # fmt: skip
CHAT_TEMPERATURE, CHAT_TOP_K = 0.8, 50  # what people meet in the browser
STORY = "Tell me a story about the fox."
Scores = dict[str, str]


def run(config: Eval, root: pathlib.Path) -> tuple[str, Scores, list[Any]]:
    """(title, scores as text, further items) of the section of the report.

    Raises:
        ValueError: an unknown task; FileNotFoundError: no such checkpoint, or no data.
    """
    title = TITLES[config.source]
    if config.source == "tokenizer":
        return title, *_tokenizer(root)
    step = config.step if config.step >= 0 else None
    model, tokenizer, meta = load_model(
        config.source, config.model_tag or None, step, base=root,
        dtype=None if config.dtype == "auto" else config.dtype,
    )  # fmt: skip
    config = dataclasses.replace(config, step=meta["step"])
    scores: Scores = {}
    items: list[Any] = [{"checkpoint step": meta["step"]}]
    names = tasks_of(config, root)
    makers = [SCORES[name] for name in names if name in SCORES]
    if asked := [name for name in names if name in BASELINES]:
        makers.append(functools.partial(_exams, asked))
    for make in makers:
        found, more = make(model, tokenizer, config, root)
        scores, items = scores | found, items + more
    return title, scores, items


def tasks_of(config: Eval, root: pathlib.Path) -> list[str]:
    """The scores to make: those named, or all that fit the source and have their data here.

    CORE and samples are for base models, ChatCORE for the others, and made of any where they are
    named. `ChatCORE` stands for all of its tasks that can be had; each can be named alone.

    Raises:
        ValueError: an unknown name.
    """
    named = [t for t in re.split(r"[|,\s]+", config.tasks) if t]
    for name in named:
        if name not in (*SCORES, *BASELINES):
            known = [*SCORES, *BASELINES]
            raise ValueError(f"unknown task {name!r}{nearest(name, known)}")
    base = config.source == "base"
    unfit = {"probes"} if base else {"core", "sample"} - set(named)
    if not named:
        unfit |= {"ChatCORE"} if base else set()
        unfit |= set() if core_bundle(config, root).is_dir() else {"core"}
    if not world_in_use(root):
        unfit.add("probes")
    return [t for t in (named or SCORES) if t not in unfit]


def world_in_use(root: pathlib.Path) -> bool:
    """Whether the base directory holds the embedded world, and no text of anybody's own."""
    return bool(probes.load_probes(root / "world_data")) and not any(
        (root / "base_data").glob("*.parquet")
    )


def answers_folder(config: Eval, root: pathlib.Path) -> pathlib.Path:
    """Where the marks of each problem are kept, so that a score can be looked into or gone on with.

    One folder a checkpoint and number of problems: a short try leaves a long run's marks alone.
    """
    tag = config.model_tag or guess_tag(root / CHECKPOINTS[config.source])
    capped = f"_x{config.max_problems}" if config.max_problems > 0 else ""
    return root / "eval" / f"{config.source}_{tag}_{config.step:06d}{capped}"


def core_bundle(config: Eval, root: pathlib.Path) -> pathlib.Path:
    """Where the tasks of CORE lie, if they are here: beside local task data, else in the base."""
    local = pathlib.Path(config.task_data) / "core_eval"
    return local if config.task_data and local.is_dir() else root / "eval_bundle"


def _core(
    model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path
) -> tuple[Scores, list]:
    """CORE and its tasks, and the table that the original's base_eval writes."""
    done = core.evaluate(
        model, tokenizer, core_bundle(config, root),
        max_per_task=config.max_problems,
        mesh=sharding.make_mesh(config.mesh or None),
        answers_dir=answers_folder(config, root) / "core",
    )  # fmt: skip
    core.write_csv(done, root / "base_eval" / f"{config.source}_model_{config.step:06d}.csv")
    return {done.title: f"{done.core_metric:.4f} (±{done.half_width:.4f})"}, [core.table(done)]


def _chatcore(
    model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path
) -> tuple[Scores, list]:
    """All of ChatCORE that can be had; the demo of the embedded world fetches nothing."""
    fetch = not config.task_data and not world_in_use(root)
    found, skipped = catalog.at_hand(root, config.task_data or None, fetch=fetch)
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        log.warning("ChatCORE is left out, for none of its tasks is here: %s", why)
        return {}, []
    folder = answers_folder(config, root) / "chat"
    return section.scored(model, tokenizer, config, found, skipped, answers_dir=folder)


def _exams(
    names: Sequence[str], model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path
) -> tuple[Scores, list]:
    """Tasks of ChatCORE that were named."""
    found = catalog.named(names, root, config.task_data or None)
    folder = answers_folder(config, root) / "chat"
    return section.scored(model, tokenizer, config, found, answers_dir=folder)


def _sample(
    model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path
) -> tuple[Scores, list]:
    """Texts of a base model."""
    told = [f"- `{text}`" for text in samples.continued(model, tokenizer, SAMPLE_PROMPTS)]
    free = [f"- `{text}`" for text in samples.free(model, tokenizer, config.seed)]
    return {}, ["\n".join(["Samples:", "", *told, "", "From nothing:", "", *free])]


def _bpb(
    model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path
) -> tuple[Scores, list]:
    """Bits per byte of the validation shard."""
    data, T = shards.find_shards(root), model.cfg.sequence_len
    rows = config.device_batch_size
    batches = pretraining_loader([data.val], tokenizer, rows, T)
    first = (b for b in _until_second_epoch(batches))
    steps = max(1, config.split_tokens // (rows * T))
    steps = min(steps, config.max_problems) if config.max_problems > 0 else steps
    value = bits_per_byte(model, first, np.asarray(tokenizer.token_bytes()), steps)
    rule = "a token's raw bytes (corrected rule; nanochat's of before July 2026 reads lower)"
    return {"val bpb": f"{value:.4f}"}, [{"bits per byte count": rule}]


def _until_second_epoch(batches: Any) -> Any:
    for i, batch in enumerate(batches):
        if batch.epoch > 1 and i:
            return
        yield batch


def _probes(
    model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path
) -> tuple[Scores, list]:
    """The examination of the embedded world, greedy and as people meet it, and real exchanges."""
    asked = probes.load_probes(root / "world_data")
    engine = Engine(model, tokenizer, slots=64)
    greedy = probes.run_probes(engine, tokenizer, asked)
    warm = probes.run_probes(
        engine, tokenizer, asked, temperature=CHAT_TEMPERATURE, top_k=CHAT_TOP_K, seed=config.seed
    )
    scores = {f"probe: {k}": _cell(greedy[k]) for k in (*probes.KINDS, *probes.APART)}
    scores["mean of probes"] = f"{100 * probes.mean_share(greedy):.1f}%"
    sampled = (
        f"at temperature {CHAT_TEMPERATURE}: mean {100 * probes.mean_share(warm):.1f}%; "
        + ", ".join(f"{k} {100 * warm[k].share:.0f}%" for k in (*probes.KINDS, *probes.APART))
    )
    story = engine.complete(
        [probes.prompt_of(tokenizer, STORY)], 110, CHAT_TEMPERATURE, CHAT_TOP_K, 1
    )
    lines = ["Exchanges (greedy):", ""]
    for kind in (*probes.KINDS, *probes.APART):
        right = "right" if greedy[kind].exchanges[0][2] else "wrong"
        question, reply, _ = greedy[kind].exchanges[0]
        lines.append(f"- {kind}, {right}: `{question}` -> `{reply}`")
    told = tokenizer.decode(story[0].tokens)
    lines.append(f"- a story, temperature {CHAT_TEMPERATURE}: `{STORY}` -> `{told}`")
    return scores, [sampled, "\n".join(lines)]


def _cell(score: probes.ProbeScore) -> str:
    return f"{100 * score.share:.1f}% (n={score.n})"


def _tokenizer(root: pathlib.Path) -> tuple[Scores, list[Any]]:
    """Bytes per token of the first documents of each split."""
    tokenizer, data = Tokenizer.load(root / "tokenizer"), shards.find_shards(root)
    figures = {}
    for split, files in (("train", data.train[:1]), ("val", (data.val,))):
        text = "\n".join(next(shards.iter_documents(files)))
        ids = tokenizer.encode(text)
        if tokenizer.decode(ids) != text:
            raise RuntimeError(f"the tokenizer does not give back the {split} text")
        figures[f"{split} bytes per token"] = len(text.encode()) / len(ids)
    return {}, [figures | {"vocabulary": tokenizer.get_vocab_size()}]


SCORES = {
    "core": _core, "bpb": _bpb, "sample": _sample, "probes": _probes, "ChatCORE": _chatcore,
}  # fmt: skip
