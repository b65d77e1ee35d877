"""Chooses what JAX runs on, before JAX first looks: platform, devices, memory, compile cache.

Nothing here imports JAX at module level; `prepare` must come before the first computation.
"""

import functools
import glob
import importlib.util
import logging
import os
import pathlib
import platform
import re
import sys
from typing import Any

from nanochat_jax import cpu_process, gpu_process
from nanochat_jax.config.mesh import mesh_size

log = logging.getLogger(__name__)

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"
# Compute capability of Ampere: the first NVIDIA GPUs that multiply in bfloat16. For older ones XLA
# puts a conversion to float32 around each product (compiled for a T4: docs/log.md).
FIRST_BFLOAT16 = 8.0


def machine_kind() -> str:
    """`gpu`, `tpu` or `cpu`: what JAX would pick here, without starting it."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted:
        # A list is an order of preference; JAX's names for NVIDIA and AMD are one kind to us.
        first = wanted.split(",")[0]
        return {"cuda": "gpu", "rocm": "gpu"}.get(first, first)
    # Asking JAX would start it, and then no platform or virtual devices can be chosen any more.
    if has_cuda_plugin() and os.path.exists("/dev/nvidiactl"):
        return "gpu"
    tpu = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    return "tpu" if tpu and importlib.util.find_spec("libtpu") else "cpu"


def begin_again() -> None:
    """Starts this program anew, as it was called, where a CPU's environment must be there from the
    start: first of all, before anything is read or opened."""
    if machine_kind() == "cpu" and (changes := cpu_environment()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | changes)


def cpu_environment() -> dict[str, str]:
    """What a process that computes on this machine's CPU wants in its environment beside this."""
    return cpu_process.environment(platform.libc_ver()[0], os.environ)


def has_cuda_plugin() -> bool:
    """Whether JAX's build for NVIDIA GPUs is installed, with or without a GPU."""
    return any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13))


def resolve_kind(device_type: str) -> str:
    """`cpu`, `gpu` or `tpu` for what the user typed; `mps` and absent accelerators raise."""
    if device_type == "mps":
        raise ValueError(
            "device type mps: JAX has no kept backend for Apple GPUs; what works on a Mac is the "
            "CPU: use --device-type cpu (or leave the flag out)"
        )
    kind = {"": machine_kind(), "cuda": "gpu"}.get(device_type, device_type)
    if kind == "gpu" and device_type and machine_kind() != "gpu":
        raise ValueError(
            "device type gpu: expected an NVIDIA GPU and the CUDA build of JAX, got neither or one "
            "of them; install with `make setup` on the GPU machine, or use --device-type cpu"
        )
    return kind


def compute_dtype(name: str = "auto") -> Any:
    """The type that models compute in, unless named: as `automatic_dtype` of the first device."""
    import jax
    import jax.numpy as jnp

    device = jax.local_devices()[0]
    automatic = automatic_dtype(device)
    if device.platform == "gpu" and automatic == "float32" and name != "float32":
        _tell_of_no_bfloat16(name, device.device_kind, device.compute_capability)
    return jnp.dtype(automatic if name == "auto" else name)


def automatic_dtype(device: Any) -> str:
    """bfloat16 on accelerators; float32 on a CPU, and on NVIDIA GPUs without bfloat16.

    CPUs have no bfloat16 arithmetic to speak of, and a laptop's results should be exact. float16,
    which a T4 multiplies eight times as fast, is no choice without a scaled loss and a guard of the
    MLP's squares: of the demo's gradients an eighth lies below its least number (docs/log.md).
    """
    old = (capability(device) or FIRST_BFLOAT16) < FIRST_BFLOAT16
    return "float32" if device.platform == "cpu" or old else "bfloat16"


def capability(device: Any) -> float | None:
    """The compute capability of an NVIDIA GPU, such as 7.5; None of any other device."""
    # AMD's names ("gfx942") are no numbers.
    found = re.fullmatch(r"\d+\.\d+", str(getattr(device, "compute_capability", "")))
    return float(found[0]) if found else None


@functools.cache  # several parts of a program ask, and one line is enough
def _tell_of_no_bfloat16(name: str, kind: str, capability: str) -> None:
    why = f"{kind} (compute capability {capability}) cannot multiply in bfloat16"
    if name == "auto":
        log.info("computing in float32: %s", why)
    else:
        log.warning("SLOW ARITHMETIC: %s: XLA converts to float32 and back around each product; "
                    "leave --dtype out", why)  # fmt: skip


def prepare(
    device_type: str = "", mesh: str = "", simulate: bool = False, *, virtual: int | None = None,
    threads: bool = False, cache: pathlib.Path | None = None, processes: int = 1,
) -> str:  # fmt: skip
    """Sets JAX up and returns the kind of device. On a CPU it makes virtual devices; on GPUs it
    sets the pool and XLA's flags where the user has not (`gpu_process`).

    Args:
        virtual: CPU devices to make when the mesh does not say (None: one).
        threads: keep XLA's threads though there are several; one of them alone may be used then.
        cache: folder of the persistent compilation cache; XLA's autotuning results lie there too.
        processes: of the run; each has an equal part of the mesh.

    Raises:
        ValueError: a mesh that the machine cannot hold, or that the processes do not divide.
    """
    # JAX settles on its devices when it is first used and never again in a process: environment
    # variables before the import, jax.config before the first computation.
    kind = "cpu" if simulate else resolve_kind(device_type)
    count = own_part(mesh, processes) or virtual or 1
    if kind == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        if mesh and not simulate and count > cpu_count():
            raise ValueError(
                f"mesh {mesh!r} wants {count} devices, this CPU has {cpu_count()} cores; "
                f"use --mesh {cpu_count() * processes}, or add --simulate-devices to try the mesh "
                "all the same"
            )
        flags = os.environ.get("XLA_FLAGS", "")
        if count > 1 and not threads and "multi_thread_eigen" not in flags:
            # One device a core with single-threaded kernels beats one device with XLA's threads
            # at the sizes people train on a CPU.
            os.environ["XLA_FLAGS"] = f"{flags} {ONE_THREAD}".strip()
    if kind == "gpu":
        files = len(glob.glob("/dev/nvidia[0-9]*"))
        gpus = own_part(mesh, processes) or gpu_process.visible_gpus(os.environ, files)
        os.environ |= gpu_process.environment(gpus * processes, os.environ)
    import jax

    if kind == "cpu":
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return kind


def own_part(mesh: str, processes: int) -> int | None:
    """Devices of a `--mesh` that each of the processes holds; None where it names none."""
    size = mesh_size(mesh)
    if size and size % processes:
        raise ValueError(
            f"mesh {mesh!r} has {size} devices, which {processes} processes do not divide; use "
            f"--mesh {-(-size // processes) * processes}, or another --num-processes"
        )
    return size and size // processes


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def virtual_devices(rows: int, rows_per_device: int, processes: int = 1) -> int:
    """CPU devices of each process: one a core, as many as `rows` of a step can feed evenly."""
    most = max(1, min(cpu_count(), rows // max(1, rows_per_device) // processes))
    feeds = lambda n: (rows // rows_per_device) % (n * processes) == 0
    return next((n for n in range(most, 0, -1) if feeds(n)), 1)
