"""The whole chain: data, tokenizer, base, mid, sft, scores, report. What is done is skipped."""

import dataclasses
import logging
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nanochat_jax import pipeline
from nanochat_jax.config import flags, paths
from nanochat_jax.config.errors import FAILURES, start_logging, told
from nanochat_jax.config.paths import base_dir
from nanochat_jax.config.program import Processes, Shared, Speedrun
from nanochat_jax.config.resolve import SECTIONS
from nanochat_jax.config.values import fields
from nanochat_jax.hosts import group
from nanochat_jax.results import EVALUATION
from nanochat_jax.tasks import hub

log = logging.getLogger(__name__)

STAGES = ("tokenizer", "base", "mid", "sft")
# Flags of the speedrun that hold for every stage that knows them.
SHARED = {*Shared.__dataclass_fields__, *Processes.__dataclass_fields__, "run", "task_data"}
ROWS = "device_batch_size"


def run(argv: Sequence[str]) -> None:
    """Runs what is not done yet and prints the report's summary.

    Raises:
        ValueError: a finished stage was made with other settings and `--fresh` was not given.
        FileNotFoundError: no such folder of task files.
    """
    start_logging()
    started = time.perf_counter()
    layers = pipeline.layers_of("speedrun", argv, prog="scripts.speedrun")
    config, handed = layers.config(), layers.handed_on()
    log.info("speedrun: settings of %s; loading JAX ...", layers.path or "the defaults")
    if config.task_data:
        hub.folder_of(config.task_data)  # now, not when the first chat stage misses it
    stages = (*STAGES, "rl") if config.rl else STAGES
    configs = {stage: configure(stage, config, handed) for stage in (*stages, "eval")}
    kind = pipeline.prepare_devices(configs["base"])
    root = base_dir()
    log.info("speedrun on %s, %s; everything lies in %s", kind, config.config or "defaults", root)
    from nanochat_jax.train.stages import check_settings

    check_settings(configs["base"], configs["tokenizer"].vocab_size)  # before anything is replaced
    # Process 0 alone fetches: all read the same files.
    rest_of_data = _data(config, configs) if group.chief() else lambda: None
    from nanochat_jax import report

    if group.chief() and (config.fresh or not report.begun(root)):
        report.reset(root)
    failed = 0
    for stage in stages:
        if stage == "base":
            group.first(rest_of_data)
        # Anew: what a chat stage takes over from the checkpoint before it is known only now.
        ran = _stage(stage, configure(stage, config, handed), config.fresh, handed)
        failed += _evaluate(stage, configs["eval"], ran, config.strict)
    if group.chief():
        last = stages[-1]
        _finish(root, folder_of(last, configure(last, config, handed), root), failed, started)


def folder_of(stage: str, config: Any, root: pathlib.Path) -> pathlib.Path:
    """Where a stage that is done lies."""
    from nanochat_jax.train import origin

    return origin.directory(stage, origin.find(stage, config, root).tag(config), root)


def _finish(root: pathlib.Path, last: pathlib.Path, failed: int, started: float) -> None:
    """Writes the report and says what to do with the model of the last stage, in its folder."""
    from nanochat_jax import report
    from nanochat_jax.checkpoint import aside

    path = report.generate(root)
    log.info("\n%s", report.summary(root))
    if failed:
        again = "type the same again to repeat them"
        log.info("%d evaluation(s) failed and are missing there; %s", failed, again)
    log.info("the whole report: %s (%.0f s in all)", path, time.perf_counter() - started)
    log.info("to look at, with curves: %s", path.with_suffix(".html"))
    log.info("%s", talk(last))
    began = time.time() - (time.perf_counter() - started)
    if moved := [each.name for each in aside.found(root, since=began)]:
        log.info("moved aside for it: %s; back with: python -m scripts.checkpoints restore NAME",
                 ", ".join(moved))  # fmt: skip


def talk(folder: pathlib.Path) -> str:
    """What to type to talk to a model; `make chat` takes the one that is guessed."""
    stage = next(s for s, name in paths.CHECKPOINTS.items() if name == folder.parent.name)
    typed = f"python -m scripts.chat_web -i {stage}{flags.tagged(folder)}"
    if flags.tagged(folder):
        return f"now talk to it:  {typed}"
    return f"now talk to it:  make chat   or   make web   ({typed})"


def configure(section: str, config: Speedrun, handed: Mapping[str, Any] | None = None) -> Any:
    """The config of one stage or of the evaluation: the speedrun's file, what all share, and what
    is `handed` on to every stage that knows it.

    The file counts as named, also where it is the default: a speedrun is one recipe from start to
    end, and no stage of it shall follow a checkpoint away from that.
    """
    known = set(fields(SECTIONS[section]))
    usual = Speedrun()
    shared = {n: vars(config)[n] for n in SHARED & known if vars(config)[n] != vars(usual)[n]}
    given = {name: value for name, value in (handed or {}).items() if name in known}
    if section not in ("tokenizer", "base") and (tag := _tag(config, handed)):
        shared = {"model_tag": tag} | shared
    made = pipeline.configure(section, values=shared | given)
    if ROWS not in given or section in ("base", "mid"):
        return made
    # These count in rows: a step of theirs may have fewer than a micro-batch of base has.
    own = getattr(pipeline.configure(section, values=shared), ROWS)
    return dataclasses.replace(made, **{ROWS: min(own, given[ROWS])})


def _tag(config: Speedrun, handed: Mapping[str, Any] | None) -> str:
    """The name of the speedrun's models, where a stage or score that is given none would take
    another's: a deeper one may lie beside them. Else empty."""
    base = configure("base", config, handed)
    if config.model_tag or base.init:
        return ""
    own, root = base.model_tag or f"d{base.depth}", base_dir()
    guessed = {paths.guess_tag(paths.checkpoints(root, stage)) for stage in paths.CHECKPOINTS}
    return own if guessed - {None, own} else ""


def _stage(stage: str, config: Any, fresh: bool, handed: Mapping[str, Any]) -> bool:
    """Runs a stage unless it is done; True if it ran. Goes on where an earlier run was stopped."""
    from nanochat_jax.train import stages

    nothing = {}, None, False
    status = lambda: nothing if fresh else stages.status(stage, config, base_dir())
    want, have, final = group.first(status)
    if have is None:
        log.info("\n=== %s ===", stage)
        pipeline.run(stage, config, alone=False)
        return True
    # Who lowers the batch because a later stage ran out of memory keeps what is done.
    if ROWS in handed and ROWS in have:
        want = want | {ROWS: have[ROWS]}
    # Never trained again unasked: it may be days of work that a changed line would throw away.
    # The tag only names the folder that it was found in; whether it was typed is no difference.
    want = want | {"model_tag": have["model_tag"]} if "model_tag" in have else want
    if have != want:
        raise ValueError(
            f"stage {stage!r} is on disk, made with other settings: {differences(have, want)}; "
            "to train everything anew type python -m scripts.speedrun --fresh, to keep both set "
            "another --model-tag or $NANOCHAT_BASE_DIR"
        )
    if final:
        log.info("=== %s: done before, skipped ===", stage)
        return False
    log.info("\n=== %s: going on where it stopped ===", stage)
    pipeline.run(stage, dataclasses.replace(config, resume=True), alone=False)
    return True


def differences(have: Mapping[str, Any], want: Mapping[str, Any]) -> str:
    """`key: was 3, now 4` for what two fingerprints disagree on, the first few."""
    keys = [k for k in sorted({*have, *want}) if have.get(k) != want.get(k)]
    shown = [f"{k}: was {have.get(k)!r}, now {want.get(k)!r}" for k in keys[:6]]
    return "; ".join(shown) + (f"; and {len(keys) - 6} more" if len(keys) > 6 else "")


def _evaluate(stage: str, config: Any, ran: bool, strict: bool) -> int:
    """Scores what a stage made, once; 1 if that failed, which costs no stage after it."""
    from nanochat_jax import report

    if not ran and group.first(lambda: report.has(base_dir(), EVALUATION[stage])):
        return 0
    try:
        pipeline.evaluate(dataclasses.replace(config, source=stage))
    except Exception as error:
        if strict or group.count() > 1:  # it may have failed in one process alone
            raise
        told(f"the evaluation of stage {stage}", error, paths.report(base_dir()) / FAILURES)
        return 1
    return 0


def _data(config: Speedrun, configs: Mapping[str, Any]) -> Callable[[], None]:
    """Fetches what the tokenizer reads, where the config trains on downloaded text.

    Returns what fetches the rest: it is called before base training. Meanwhile shards arrive in a
    process of their own.
    """
    if not config.download:
        return lambda: None
    from nanochat_jax.data import ahead, download

    root, recipe = base_dir(), configs["base"].recipe
    own = download.own(root)
    first = configs["tokenizer"].num_shards + 1  # the last by name is for validation
    if own:
        log.info("%s holds texts of your own: they are trained on, and nothing is fetched beside "
                 "them", own[0].parent)  # fmt: skip
        finish = lambda: None
    elif first < 1 or config.download <= first:
        download.shards(root, config.download, recipe=recipe)
        finish = lambda: None
    else:
        download.shards(root, first, recipe=recipe)
        process = ahead.start(root, config.download, recipe)
        finish = lambda: ahead.finish(process, root, config.download, recipe)

    def rest() -> None:
        finish()
        download.identity(root)
        download.words(root)
        download.eval_bundle(root)

    return rest
