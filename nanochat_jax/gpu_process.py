"""The environment of a process on GPUs: its memory pool and XLA's flags. Pure.

JAX reads both once, when it starts. What the user has set stands, flag by flag. Why these values:
docs/log.md, 28 November 2026.
"""

import itertools
from collections.abc import Mapping

# JAX takes three quarters of a card by itself. The rest of 8 % holds the driver's context, NCCL's
# buffers and cuDNN's and cuBLAS's handles, which lie outside the pool.
POOL = "XLA_CLIENT_MEM_FRACTION"
OLD_POOL = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # JAX refuses to start with both
FRACTION = "0.92"

# Kernels run while arrays travel between devices. Without it the compiled step of d20 on eight
# GPUs has next to none beside its collectives; one GPU has no collectives. Thresholds above XLA's
# own for combining them are not set: one large collective waits for the last gradient.
SEVERAL_DEVICES = {"xla_gpu_enable_latency_hiding_scheduler": "true"}


def environment(devices: int, env: Mapping[str, str]) -> dict[str, str]:
    """Variables to set, over those of `env`, for a process on so many GPUs."""
    flags = env.get("XLA_FLAGS", "")
    own = SEVERAL_DEVICES if devices > 1 else {}
    # An unknown flag ends the process, so every flag here is one that a test hands to XLA.
    more = [f"--{name}={value}" for name, value in own.items() if name not in flags]
    changes = {"XLA_FLAGS": " ".join([flags, *more]).strip()} if more else {}
    if not {POOL, OLD_POOL} & set(env):
        changes[POOL] = FRACTION
    return changes


def visible_gpus(env: Mapping[str, str], device_files: int) -> int:
    """GPUs that a process may use, of so many in the machine."""
    chosen = env.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return device_files
    # CUDA stops reading at the first that is no device, such as -1.
    named = itertools.takewhile(
        lambda name: name not in ("", "-1"), map(str.strip, chosen.split(","))
    )
    return len(list(named))
