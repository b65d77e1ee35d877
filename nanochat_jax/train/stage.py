"""What the stages of the model share: where weights come from, what is measured on the way."""

import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax import sharding
from nanochat_jax.checkpoint import find_checkpoint, load_tokenizer, store
from nanochat_jax.config import values as config_values
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.paths import CHECKPOINTS
from nanochat_jax.config.stages import BaseTrain, Stage
from nanochat_jax.data.batch import one_pass
from nanochat_jax.evals import core
from nanochat_jax.evals.bpb import bits_per_byte
from nanochat_jax.models.gpt import GPT, Model, init_params
from nanochat_jax.serve.engine import Engine
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.train.loop import Due, Scores

log = logging.getLogger(__name__)

Section = tuple[str, list[Any]]  # a title and the items of the report under it
SAMPLE_TOKENS = 16


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a stage begins: at its own checkpoint, from the weights of another, or nowhere."""

    resumed: store.Saved | None = None
    source: store.Saved | None = None

    @property
    def saved(self) -> store.Saved | None:
        return self.resumed or self.source

    def model_config(self) -> GPTConfig | None:
        return GPTConfig(**self.saved.meta["model_config"]) if self.saved else None


def origin(stage: str, config: Stage, root: pathlib.Path) -> Origin:
    """The checkpoint a stage begins at, by `--resume`, `--init`, or the stage before it.

    Raises:
        FileNotFoundError: there is none; the message names the command that makes it.
        ValueError: `--resume` and `--init` together, or a damaged checkpoint.
    """
    resuming = config.resume or config.resume_from_step >= 0
    if resuming and config.init:
        raise ValueError("--resume continues this stage, --init starts it elsewhere: give one")
    source = None
    if config.init:
        source = store.find(pathlib.Path(config.init).expanduser())
    elif stage != "base":
        step = config.step if config.step >= 0 else None
        source = find_checkpoint(config.source, config.model_tag or None, step, root)
    resumed = None
    if resuming:
        tag = config.model_tag or (source.path.parent.name if source else f"d{config.depth}")
        at = config.resume_from_step if config.resume_from_step >= 0 else None
        resumed = store.find(root / CHECKPOINTS[stage] / tag, at)
    for saved in filter(None, (resumed, None if resumed else source)):
        store.verify(saved)
    return Origin(resumed, source)


def target_directory(stage: str, tag: str, root: pathlib.Path, resuming: bool) -> pathlib.Path:
    """The checkpoint directory of a run. A new run moves an older one of its name aside."""
    directory = root / CHECKPOINTS[stage] / tag
    if not resuming and directory.exists():
        old = directory.parent / ".old"
        old.mkdir(exist_ok=True)
        aside = next(p for n in itertools.count(1) if not (p := old / f"{tag}-{n}").exists())
        directory.rename(aside)
        log.warning("an earlier run was in %s; it lies now in %s", directory, aside)
    return directory


def tokenizer_for(start: Origin, root: pathlib.Path) -> Tokenizer:
    """The tokenizer of the checkpoint a stage begins at, else the base directory's."""
    if start.saved is not None:
        return load_tokenizer(start.saved, root)
    return Tokenizer.load(root / "tokenizer")


def compute_dtype(config: Stage) -> Any:
    """The type of activations: bfloat16 on accelerators, float32 on a CPU, unless given."""
    automatic = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(automatic if config.dtype == "auto" else config.dtype)


def micro_per_step(config: Stage, total_tokens: int, mesh: jax.sharding.Mesh) -> int:
    """Micro-batches of one optimizer step.

    Raises:
        ValueError: the batch does not divide; the message says what would fit.
    """
    micro = config.device_batch_size * config.max_seq_len
    devices = mesh.size
    if total_tokens % (micro * devices):
        rows = total_tokens // (config.max_seq_len * devices)
        fits = [b for b in range(1, rows + 1) if rows % b == 0] if rows else []
        advice = (
            f"set --device-batch-size to one of {', '.join(map(str, fits[-6:]))}"
            if fits and total_tokens % (config.max_seq_len * devices) == 0
            else f"set --total-batch-size to a multiple of {micro * devices}"
        )
        raise ValueError(
            f"a step of {total_tokens} tokens does not divide into micro-batches of "
            f"{config.device_batch_size} x {config.max_seq_len} tokens on {devices} device(s); "
            f"{advice}, or use fewer devices with --mesh"
        )
    return total_tokens // micro


def bpb_due(
    config: Stage, batches: Callable[[], Iterable[Any]], tokenizer: Tokenizer, prefix: str = "val"
) -> Due:
    """Bits per byte of the validation split, at most one pass of it."""
    token_bytes_V = np.asarray(tokenizer.token_bytes())
    steps = max(1, config.eval_tokens // (config.device_batch_size * config.max_seq_len))

    def run(model: Model, step: int) -> Scores:
        bpb = bits_per_byte(model, one_pass(batches(), steps), token_bytes_V, steps)
        return {f"{prefix}/bpb": bpb}

    return Due(config.eval_every, run)


def sample_due(config: Stage, tokenizer: Tokenizer) -> Due:
    """Greedy continuations of the config's prompts."""
    prompts = [[tokenizer.get_bos_token_id(), *tokenizer.encode(p)] for p in config.sample_prompts]

    def run(model: Model, step: int) -> Scores:
        engine = Engine(model, tokenizer, slots=len(prompts))
        done = engine.complete(prompts, max_tokens=SAMPLE_TOKENS, temperature=0.0)
        texts = [
            tokenizer.decode(p[1:] + list(c.tokens)) for p, c in zip(prompts, done, strict=True)
        ]
        return {"samples": texts}

    return Due(config.sample_every if prompts else -1, run, first=False)


def core_due(config: BaseTrain, tokenizer: Tokenizer, root: pathlib.Path) -> Due:
    """CORE, where its tasks lie in the base directory: a run fetches nothing once it has begun."""
    bundle = root / "eval_bundle"

    def run(model: Model, step: int) -> Scores:
        found = core.evaluate(
            model, tokenizer, bundle, max_per_task=config.core_metric_max_per_task
        )
        centered = {label: task.centered for label, task in found.tasks.items()}
        tasks = f"{len(found.tasks)} of {len(found.tasks) + len(found.skipped)}"
        return {
            "core_metric": found.core_metric, "core_tasks": tasks, "centered_results": centered
        }  # fmt: skip

    every = config.core_metric_every if bundle.is_dir() else -1
    return Due(every if every > 0 else -1, run, first=False)


def lineage(start: Origin, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a result owes to what came before: part of a stage's fingerprint."""
    parent = start.source.meta.get("fingerprint") if start.source else None
    return {
        "tokenizer": tokenizer.hash,
        "parent": config_values.digest(parent) if parent is not None else None,
    }


def mesh_of(config: Stage) -> jax.sharding.Mesh:
    return sharding.make_mesh(config.mesh or None)


def gpt_of(cfg: GPTConfig, config: Stage) -> GPT:
    return GPT(cfg, dtype=compute_dtype(config))


def fingerprint(stage: str, config: Stage, root: pathlib.Path) -> dict[str, Any]:
    """What decides the result of a stage: its settings and what it begins with. JSON values."""
    start = origin(stage, dataclasses.replace(config, resume=False, resume_from_step=-1), root)
    return fingerprint_of(config, start, tokenizer_for(start, root))


def fingerprint_of(config: Stage, start: Origin, tokenizer: Tokenizer) -> dict[str, Any]:
    return config_values.fingerprint(config) | lineage(start, tokenizer)


def initial_params(gpt: GPT, start: Origin, config: Stage) -> Callable[[], Any]:
    """What makes the first parameters: drawn anew, or read from the checkpoint."""
    if start.source is not None:
        params = start.source.params()
        return lambda: params
    return lambda: init_params(gpt.cfg, jax.random.key(config.seed))


def figures(scores: Scores) -> dict[str, Any]:
    """The results of a run as the report shows them."""
    names = {
        "best_bpb": "Minimum validation bpb",
        "val/bpb": "Final validation bpb",
        "core_metric": "CORE metric estimate",
        "core_tasks": "CORE tasks",
        "steps": "Number of iterations",
    }
    shown = {title: scores[key] for key, title in names.items() if key in scores}
    return shown | {
        "Number of training tokens": scores["tokens"],
        "Total training time": f"{scores['train_s'] / 60:.2f}m",
        "Peak memory usage": f"{peak_memory_mib():.2f}MiB",
    }


def peak_memory_mib() -> float:
    """Most device memory in use so far; on a CPU, of this process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
