"""All the scores of one stage: what `scripts.eval` and the speedrun run."""

import dataclasses
import functools
import logging
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from nanochat_jax import kernels, sharding
from nanochat_jax.checkpoint import find_checkpoint, load_model
from nanochat_jax.config import paths
from nanochat_jax.config.errors import nearest
from nanochat_jax.config.program import Eval
from nanochat_jax.config.stages import SAMPLE_PROMPTS
from nanochat_jax.data import shards
from nanochat_jax.data.batch import one_pass
from nanochat_jax.data.loader import pretraining_loader
from nanochat_jax.evals import bpb, chatcore, controls, core, placing, probes, samples, sandbox
from nanochat_jax.evals.chatcore import catalog
from nanochat_jax.evals.chatcore.catalog import BASELINES
from nanochat_jax.hosts import group
from nanochat_jax.models.gpt import Model
from nanochat_jax.results import EVALUATION, Check, Exchange, Score, Section
from nanochat_jax.serve.engine import Engine
from nanochat_jax.tasks import Task
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

CHAT_TEMPERATURE, CHAT_TOP_K = 0.8, 50  # what people meet in the browser
ONE = ("sample", "probes")  # of several processes the first makes them, on one device
STORY = "Tell me a story about the fox."


class Found(NamedTuple):
    """What one evaluation adds to the section of its stage."""

    scores: Sequence[Score] = ()
    details: Sequence[Score] = ()
    texts: Sequence[str] = ()
    exchanges: Sequence[Exchange] = ()
    checks: Sequence[Check] = ()
    answers: pathlib.Path | None = None  # folder of every graded answer


Evaluation = Callable[[Model, Tokenizer, Eval, pathlib.Path], Found]


def run(config: Eval, root: pathlib.Path) -> Section:
    """The section of the report with the scores of `config.source`.

    Raises:
        ValueError: an unknown task.
        FileNotFoundError: no such checkpoint, or no data.
    """
    if config.source == "tokenizer":
        return _tokenizer(root)
    step = config.step if config.step >= 0 else None
    saved = find_checkpoint(config.source, config.model_tag or None, step, root)
    # From here on it is named in full: training may save another meanwhile.
    config = dataclasses.replace(config, model_tag=saved.path.parent.name, step=saved.step)
    dtype = None if config.dtype == "auto" else config.dtype
    model, tokenizer, _ = load_model(
        config.source, config.model_tag, config.step, base=root, dtype=dtype
    )
    figures = saved.identity  # of what was loaded: a new run may take its place meanwhile
    model = _with_flash_attention(model)
    if group.count() > 1:
        model, _ = placing.on_mesh(model, sharding.make_mesh(config.mesh or None))
    names = tasks_of(config, root)
    # One process is enough for texts and probes.
    here = EVALUATIONS if group.chief() else {k: v for k, v in EVALUATIONS.items() if k not in ONE}
    evaluations = [here[name] for name in names if name in here]
    if picked := [name for name in names if name in BASELINES]:
        evaluations.append(functools.partial(_named_tasks, picked))
    found = [evaluate(model, tokenizer, config, root) for evaluate in evaluations]
    return Section(
        EVALUATION[config.source],
        figures=figures,
        scores=[s for f in found for s in f.scores],
        details=[s for f in found for s in f.details],
        texts=[t for f in found for t in f.texts if t],
        exchanges=[e for f in found for e in f.exchanges],
        checks=[c for f in found for c in f.checks],
        answers=next((str(f.answers.relative_to(root)) for f in found if f.answers), ""),
    )


def _with_flash_attention(model: Model) -> Model:
    """The model as it scores whole rows on a GPU, where plain attention would write, of a batch of
    CORE at 2,048 tokens, gigabytes of scores in every layer."""
    if jax.default_backend() != "gpu":
        return model
    attention = kernels.choose_attention("auto", model.cfg, model.gpt.dtype)
    return dataclasses.replace(model, gpt=model.gpt.clone(attention=attention))


def tasks_of(config: Eval, root: pathlib.Path) -> list[str]:
    """The scores to make: those named, or all that fit the source and have their data here.

    CORE and samples are for base models, ChatCORE for the others, and made of any where they are
    named. `ChatCORE` stands for all of its tasks that are available; each can be named alone.

    Raises:
        ValueError: an unknown name.
    """
    named = [t for t in re.split(r"[|,\s]+", config.tasks) if t]
    known = [*EVALUATIONS, *BASELINES]
    for name in named:
        if name not in known:
            raise ValueError(f"unknown task {name!r}{nearest(name, known)}")
    base = config.source == "base"
    unfit = {"probes"} if base else {"core", "sample"} - set(named)
    if not named:
        unfit |= {"ChatCORE"} if base else set()
        unfit |= set() if core_bundle(config, root).is_dir() else {"core"}
    if not world_in_use(root):
        unfit.add("probes")
    return [t for t in (named or EVALUATIONS) if t not in unfit]


def world_in_use(root: pathlib.Path) -> bool:
    """Whether the base directory holds the embedded world, and no text of anybody's own."""
    own = bool(paths.shards(paths.base_data(root)))
    return bool(probes.load_probes(paths.world_data(root))) and not own


def answers_folder(config: Eval, root: pathlib.Path) -> pathlib.Path:
    """Where the grades of each problem are kept, to look into a score or to continue it.

    One folder a checkpoint, whose tag and step `config` names, and number of problems: a short try
    leaves a long run's grades alone.
    """
    capped = f"_x{config.max_problems}" if config.max_problems > 0 else ""
    return paths.answers(root, f"{config.source}_{config.model_tag}_{config.step:06d}{capped}")


def core_bundle(config: Eval, root: pathlib.Path) -> pathlib.Path:
    """Where the tasks of CORE lie, if they are here: beside local task data, else in the base."""
    local = pathlib.Path(config.task_data) / "core_eval"
    return local if config.task_data and local.is_dir() else paths.eval_bundle(root)


def _core(model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path) -> Found:
    """CORE and its tasks, and the table that the original's base_eval writes."""
    folder = answers_folder(config, root)
    scored = functools.partial(
        core.evaluate, model, tokenizer, core_bundle(config, root),
        max_per_task=config.max_problems, mesh=sharding.make_mesh(config.mesh or None),
    )  # fmt: skip
    done, doubted = scored(answers_dir=folder / "core"), []
    if config.controls:
        blind = scored(answers_dir=folder / "controls" / "without-question", blind=True)
        doubted = controls.core_checks(done, blind)
    if group.chief():
        core.write_csv(done, root / "base_eval" / f"{config.source}_model_{config.step:06d}.csv")
    return Found([done.score()], done.details, [core.notes(done)], checks=doubted)


def _chatcore(model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path) -> Found:
    """All of ChatCORE that is available; the demo of the embedded world fetches nothing."""
    fetch = not config.task_data and not world_in_use(root)
    with group.chief_first():
        found, skipped = catalog.at_hand(root, config.task_data or None, fetch=fetch)
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        log.warning("ChatCORE is left out, for none of its tasks is here: %s", why)
        return Found()
    return _chat_scores(model, tokenizer, config, root, found, skipped)


def _named_tasks(
    names: Sequence[str], model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path
) -> Found:
    """Tasks of ChatCORE that were named."""
    with group.chief_first():
        found = catalog.named(names, root, config.task_data or None)
    return _chat_scores(model, tokenizer, config, root, found)


def _chat_scores(
    model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path,
    tasks: Mapping[str, Task], skipped: Mapping[str, str] | None = None,
) -> Found:  # fmt: skip
    """Chat tasks scored; their mean only where all that are available were meant.

    `skipped`: why others are not among `tasks`; None where these were picked by name.
    """
    sampling = chatcore.SamplingParams(
        config.num_samples, config.max_new_tokens, config.temperature,
        config.top_k if config.top_k > 0 else None, config.seed,
    )  # fmt: skip
    folder = answers_folder(config, root)
    scored = functools.partial(
        chatcore.evaluate, model, tokenizer, max_problems=config.max_problems, sampling=sampling,
        batch_size=config.batch_size or None, mesh=sharding.make_mesh(config.mesh or None),
    )  # fmt: skip
    done = scored(tasks, skipped=skipped, answers_dir=folder / "chat")
    doubted = controls.checks(tasks, done, scored, folder / "controls") if config.controls else []
    whole = skipped is not None or len(tasks) == len(BASELINES)
    mean = [done.score()] if whole else []
    texts = [chatcore.notes(done)]
    if "HumanEval" in tasks and (gaps := sandbox.missing(sandbox.usable_layers())):
        texts.append(f"HumanEval's programs were not kept from {', '.join(gaps)} on this machine.")
    shown = [e for task in done.tasks.values() for e in task.exchanges]
    return Found([*done.details, *mean], done.details, texts, shown, doubted, folder / "chat")


def _sample(model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path) -> Found:
    """Texts of a base model."""
    model = dataclasses.replace(model, params=group.local(model.params))
    continuations = samples.Continuations(tokenizer, SAMPLE_PROMPTS)
    known = [f"- `{text}`" for text in continuations(model)]
    made = [f"- `{text}`" for text in samples.free(model, tokenizer, config.seed)]
    lines = ["Samples:", "", *known, "", "From nothing:", "", *made]
    return Found(texts=["\n".join(lines)])


def _bpb(model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path) -> Found:
    """Bits per byte of both splits, of the same number of tokens at most: what a model has seen it
    knows better, and by how much is seen side by side."""
    model, mesh = placing.on_mesh(model, sharding.make_mesh(config.mesh or None))
    data = shards.find_shards(root)
    splits = {"train": data.train, "val": (data.val,)}
    devices = mesh.size if mesh else 1
    value = lambda files: _split_bpb(model, tokenizer, config, files, devices)
    scores = [
        Score(f"{split} bpb", value(files), lower_is_better=True) for split, files in splits.items()
    ]
    rule = "a token's raw bytes (corrected rule; nanochat's of before July 2026 reads lower)"
    return Found(scores, texts=[f"- bits per byte count: {rule}"])


def _split_bpb(
    model: Model, tokenizer: Tokenizer, config: Eval, files: Sequence[pathlib.Path], devices: int
) -> float:
    """Bits per byte of the first `split_tokens` tokens of some shards."""
    rows, T = config.device_batch_size * devices, model.cfg.sequence_len
    steps = max(1, config.split_tokens // (rows * T))
    steps = min(steps, config.max_problems) if config.max_problems > 0 else steps
    # The data begin again after their end, and a document that counts twice would weigh double.
    batches = one_pass(pretraining_loader(files, tokenizer, rows, T), steps)
    return bpb.bits_per_byte(model, batches, np.asarray(tokenizer.token_bytes()))


def _probes(model: Model, tokenizer: Tokenizer, config: Eval, root: pathlib.Path) -> Found:
    """Probes of the embedded world, greedy and as people meet it, and real exchanges."""
    questions = probes.load_probes(paths.world_data(root))
    model = dataclasses.replace(model, params=group.local(model.params))
    engine = Engine(model, tokenizer, slots=64)
    warm = {"temperature": CHAT_TEMPERATURE, "top_k": CHAT_TOP_K, "seed": config.seed}
    greedy = probes.run_probes(engine, tokenizer, questions)
    sampled = probes.run_probes(engine, tokenizer, questions, **warm)
    (story,) = engine.complete(
        [probes.prompt_of(tokenizer, STORY)], 110, CHAT_TEMPERATURE, CHAT_TOP_K, 1
    )
    # Greedy scores are the ones in the table: they are the same in every run. Sampled ones say what
    # people meet.
    kinds = (*probes.KINDS, *probes.APART)
    summary = (
        f"at temperature {CHAT_TEMPERATURE}: mean {100 * probes.mean_share(sampled):.1f}%; "
        + ", ".join(f"{k} {100 * sampled[k].accuracy:.0f}%" for k in kinds)
    )
    told = Exchange(
        f"a story, temperature {CHAT_TEMPERATURE}", STORY, tokenizer.decode(story.tokens)
    )
    exchanges = [exchange for kind in kinds for exchange in greedy[kind].exchanges]
    return Found(probes.scores(greedy), texts=[summary], exchanges=[*exchanges, told])


def _tokenizer(root: pathlib.Path) -> Section:
    """Bytes per token of the first documents of each split."""
    tokenizer, data = Tokenizer.load(paths.tokenizer(root)), shards.find_shards(root)
    figures = {}
    for split, files in (("train", data.train[:1]), ("val", (data.val,))):
        text = "\n".join(next(filter(None, shards.iter_documents(files))))
        ids = tokenizer.encode(text)
        if tokenizer.decode(ids) != text:
            raise RuntimeError(f"the tokenizer does not give back the {split} text")
        figures[f"{split} bytes per token"] = len(text.encode()) / len(ids)
    figures["vocabulary"] = tokenizer.get_vocab_size()
    return Section(EVALUATION["tokenizer"], figures=figures)


EVALUATIONS: dict[str, Evaluation] = {
    "core": _core, "bpb": _bpb, "sample": _sample, "probes": _probes, "ChatCORE": _chatcore,
}  # fmt: skip
