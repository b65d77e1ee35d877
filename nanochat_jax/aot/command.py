"""`scripts.roofline`: a step compiled for cards that need not be here, as a text or JSON."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from nanochat_jax.aot import audit, programs, roofline, target
from nanochat_jax.aot.cards import Card, card
from nanochat_jax.aot.programs import Program
from nanochat_jax.aot.rates import Rates
from nanochat_jax.config import flags
from nanochat_jax.config.gpt import GPTConfig, flops_per_token
from nanochat_jax.config.stages import STAGES, Stage
from nanochat_jax.config.values import check_known


def run(argv: Sequence[str]) -> str:
    """What a step takes; `argv`: `--device`, `--stage` (base), `--json`, and the stage's flags.

    Raises:
        ValueError: settings that do not fit together, or JAX without a compiler for GPUs.
    """
    as_json, argv = "--json" in argv, [arg for arg in argv if arg != "--json"]
    device, argv = flags.take(argv, "device")
    stage, argv = flags.take(argv, "stage")
    check_known(stage or "base", STAGES.keys() - {"tokenizer"}, f"--stage is {stage!r}")
    gpu = card(device or "h100-80gb")
    config, cfg = programs.settled(stage or "base", argv)
    mesh = target.mesh(gpu, config.mesh)
    config, program = programs.fitted(config, cfg, gpu, mesh)
    found = figures(program, config, cfg, gpu, mesh.size)
    return json.dumps(found) if as_json else text(found)


def figures(
    program: Program, config: Stage, cfg: GPTConfig, gpu: Card, devices: int
) -> dict[str, Any]:
    """All that is known of a compiled step; times in ms, sizes in bytes / 1e9."""
    time = roofline.estimate(program.module, gpu)
    tokens_per_s = program.tokens / time.seconds
    peak = gpu.flops * devices
    return {
        "device": gpu.name, "devices": devices, "peak_gb": program.peak / 1e9,
        "pool_gb": gpu.pool / 1e9, "step_ms": 1e3 * time.seconds, "tokens": program.tokens,
        "tokens_per_s": tokens_per_s, "mfu": 100 * flops_per_token(cfg) * tokens_per_s / peak,
        "ms": {bound: 1e3 * s for bound, s in time.seconds_by_bound().items()},
        "waiting_ms": 1e3 * time.waiting,
        "sent_gb": audit.sent(program.module) / 1e9,
        "kernels": [kind._asdict() for kind in time.largest()],
        "largest_gb": [[size / 1e9, shape] for size, shape in audit.largest(program.module)],
        "remat": config.remat, "attention": config.attention,
        "xla_remat": len(audit.rematerialised(program.module)),
        "assumptions": dataclasses.asdict(Rates()),
    }  # fmt: skip


def text(f: dict[str, Any]) -> str:
    """The figures for people."""
    kernels = [
        f"  {1e3 * k['seconds']:8.1f} ms  {k['share']:5.1%}  x{k['launches']:<6.0f} "
        f"{k['bound']:18} {k['name']}"
        for k in f["kernels"]
    ]
    parts = ", ".join(f"{bound} {ms:.1f}" for bound, ms in f["ms"].items())
    return "\n".join(
        [
            f"{f['devices']} x {f['device']}: compiled, not measured",
            f"memory     {f['peak_gb']:.1f} GB of a pool of {f['pool_gb']:.1f} "
            f"(attention {f['attention']}, remat {f['remat']}, XLA repeats {f['xla_remat']})",
            f"step       {f['step_ms']:.1f} ms for {f['tokens']:,} tokens",
            f"speed      {f['tokens_per_s']:,.0f} tokens/s, MFU {f['mfu']:.1f} %",
            f"by bound   {parts} ms",
            f"exchanges  {f['sent_gb']:.2f} GB sent by each, {f['waiting_ms']:.1f} ms waited for",
            "largest kernels",
            *kernels,
            "assumed    shares of the card's peaks: " + ", ".join(Rates().lines()),
        ]
    )
