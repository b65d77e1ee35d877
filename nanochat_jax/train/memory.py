"""Whether a step fits on a device, and which would: found by compiling it, not by guessing."""

import bisect
import dataclasses
import functools
import logging
import os
import re
from collections.abc import Callable, Sequence

import jax

from nanochat_jax.config import flags
from nanochat_jax.config.stages import Stage

log = logging.getLogger(__name__)

REMAT = ("none", "dots", "full")  # from what computes least to what keeps least
USABLE = 0.95  # of a device's pool: the rest is for collectives and what lies beside the step
GB = 1e9

# Bytes on a device that the compiled step of a config needs at its peak.
PeakOf = Callable[[Stage], int]


def pool_bytes() -> int:
    """Bytes of a device that a step may use; 0 where the device does not tell (a CPU)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(USABLE * stats.get("bytes_limit", 0))


def machine_bytes() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def program_bytes(compiled: jax.stages.Compiled) -> int:
    """Bytes on a device that a compiled program needs at its peak, its arguments included."""
    m = compiled.memory_analysis()
    kept = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    # Not every backend's peak counts temporary arrays.
    return max(m.peak_memory_in_bytes, kept + m.temp_size_in_bytes)


def exhausted(error: BaseException) -> bool:
    """Whether XLA's compiler, or a device, ran out of memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def needed(config: Stage, peak_of: PeakOf) -> float:
    """Bytes of the config's step; infinite where the compiler refuses what does not fit."""
    try:
        return peak_of(config)
    except jax.errors.JaxRuntimeError as error:
        if not exhausted(error):
            raise
        return float("inf")


def choose_remat(config: Stage, sizes: Sequence[int], peak_of: PeakOf, limit: int) -> Stage:
    """The config with `--remat auto` settled: the first whose step fits into `limit` bytes, and
    `none` where that is 0, for then nobody knows.

    Args:
        sizes: the values of `device_batch_size` that the stage could have, ascending.

    Raises:
        ValueError: not one fits; the message says which batch would.
    """
    if config.remat != "auto":
        return config
    if not limit:
        return dataclasses.replace(config, remat=REMAT[0])
    for kept in REMAT:
        config = dataclasses.replace(config, remat=kept)
        if (peak := needed(config, peak_of)) <= limit:
            log.info("remat: %s (%s of %s)", kept, _gb(peak), _gb(limit))
            return config
    asked = f"a step needs {_gb(peak)} with --remat {kept}"
    raise ValueError(too_large(asked, config, sizes, peak_of, limit))


def too_large(
    asked: str, config: Stage, sizes: Sequence[int], peak_of: PeakOf, limit: int,
    command: Callable[..., str] = flags.again,
) -> str:  # fmt: skip
    """What a person is told whose run does not fit: the batch that would, and what to type.

    Args:
        asked: what was too much.
        sizes: as of `choose_remat`; smaller ones than the config's are compiled, by bisection.
        command: with a flag's other value as of `flags.again`, what to type.
    """
    at = f"out of memory: {asked}, of {_gb(limit)} a device, at {config.device_batch_size} row(s)"
    smaller = [size for size in sizes if size < config.device_batch_size]
    log.info("out of memory; compiling smaller batches to find one that fits")
    size, peak = largest(config, smaller, peak_of, limit)
    if not size:
        return (
            f"{at}, and fewer do not fit either; use more devices with --mesh fsdp=N, or a smaller "
            "--depth or --max-seq-len"
        )
    typed = command(device_batch_size=str(size))
    return f"{at}; the largest batch that fits is {size} ({_gb(peak)}): type {typed}"


def largest(config: Stage, sizes: Sequence[int], peak_of: PeakOf, limit: int) -> tuple[int, float]:
    """(largest of the ascending `sizes` whose step fits, its bytes); (0, 0) if none does."""
    peak = functools.cache(
        lambda size: needed(dataclasses.replace(config, device_batch_size=size), peak_of)
    )
    count = bisect.bisect_left(sizes, True, key=lambda size: peak(size) > limit)
    return (sizes[count - 1], peak(sizes[count - 1])) if count else (0, 0)


def asked_for(error: BaseException) -> str:
    """What XLA could not allocate, in words."""
    found = re.search(r"allocat\w*\D{0,20}(\d+) ?bytes|allocat\w* ([\d.]+ ?[KMGT]i?B)", str(error))
    if found is None:
        return "XLA could not allocate what it needs"
    return f"XLA asked for {_gb(int(found[1])) if found[1] else found[2]} at once"


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB" if size < float("inf") else "more than the compiler takes"
