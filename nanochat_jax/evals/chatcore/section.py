"""Chat scores as `scripts.eval` asks for them and as the report shows them."""

import pathlib
from collections.abc import Collection, Mapping

from nanochat_jax import sharding
from nanochat_jax.config.evaluate import Eval
from nanochat_jax.evals import chatcore, sandbox
from nanochat_jax.models.gpt import Model
from nanochat_jax.tasks import Task
from nanochat_jax.tokenizer import Tokenizer


def scored(
    model: Model, tokenizer: Tokenizer, config: Eval,
    tasks: Mapping[str, Task], skipped: Mapping[str, str] | None = None,
    *, answers_dir: pathlib.Path,
) -> tuple[dict[str, str], list]:  # fmt: skip
    """(scores as text, items under them); the mean only where all that can be had were asked.

    Args:
        skipped: why others are not among `tasks`; None where these were picked by name.
    """
    top_k = config.top_k if config.top_k > 0 else None
    sampling = chatcore.SamplingParams(
        config.num_samples, config.max_new_tokens, config.temperature, top_k, config.seed
    )
    done = chatcore.evaluate(
        model, tokenizer, tasks, skipped=skipped, max_problems=config.max_problems,
        sampling=sampling, batch_size=config.batch_size or None,
        mesh=sharding.make_mesh(config.mesh or None), answers_dir=answers_dir,
    )  # fmt: skip
    scores = {name: result.cell for name, result in done.tasks.items()}
    if skipped is not None or len(tasks) == len(chatcore.BASELINES):
        scores[done.title] = f"{done.metric:.4f} (±{done.half_width:.4f})"
    return scores, [chatcore.table(done), *_sandbox_note(tasks)]


def _sandbox_note(tasks: Collection[str]) -> list[str]:
    """What a reader of HumanEval's score should know of this machine."""
    gaps = sandbox.missing(sandbox.usable_layers()) if "HumanEval" in tasks else ()
    told = f"HumanEval's programs were not kept from {', '.join(gaps)} on this machine."
    return [told] if gaps else []
