"""What devices can do at most, and how much of it a run uses.

Source: nanochat `nanochat/common.py` (`get_peak_flops`), `scripts/infer_bench.py`, July 2026; T4,
V100 and P100: NVIDIA's data sheets; TPUs: Google Cloud's pages of v5e and v6e.
"""

import math

# All words must occur in the device's name, in any case; the first row wins.
PEAKS: tuple[tuple[str, float, float], ...] = (
    # words, dense bfloat16 FLOP/s (float32 where there is none), bytes/s of memory
    ("gb200", 2.5e15, 8.0e12),
    ("grace blackwell", 2.5e15, 8.0e12),
    ("b200", 2.25e15, 8.0e12),
    ("b100", 1.8e15, 8.0e12),
    ("h200+nvl", 836e12, 4.8e12),
    ("h200+pcie", 836e12, 4.8e12),
    ("h200", 989e12, 4.8e12),
    ("h100+nvl", 835e12, 3.9e12),
    ("h100+pcie", 756e12, 2.0e12),
    ("h100", 989e12, 3.35e12),
    ("h800+nvl", 989e12, 3.35e12),
    ("h800+pcie", 756e12, 2.0e12),
    ("h800", 756e12, 3.35e12),
    ("a100", 312e12, 2.0e12),
    ("a800", 312e12, 2.0e12),
    ("a40", 149.7e12, 696e9),
    ("a30", 165e12, 933e9),
    ("l40s", 362e12, 864e9),
    ("l40-s", 362e12, 864e9),
    ("l40 s", 362e12, 864e9),
    ("l4", 121e12, 300e9),
    ("mi355", 2.5e15, 8.0e12),
    ("mi325", 1.3074e15, 6.0e12),
    ("mi300x", 1.3074e15, 5.3e12),
    ("mi300a", 980.6e12, 5.3e12),
    ("mi250x", 383e12, 3.28e12),
    ("mi250", 362.1e12, 3.28e12),
    ("5090", 209.5e12, 1.79e12),
    ("4090", 165.2e12, 1.01e12),
    ("3090", 71e12, 936e9),
    ("tesla t4", 8.1e12, 320e9),
    ("v100-sxm2", 15.7e12, 900e9),
    ("p100-pcie-16gb", 9.3e12, 732e9),
    ("tpu v5 lite", 197e12, 819e9),
    ("tpu v6 lite", 918e12, 1640e9),
)


def peaks(device: str) -> tuple[float, float]:
    """FLOP/s and bytes/s of a device by its name; infinite for one we do not know."""
    name = device.lower()
    for words, flops, bandwidth in PEAKS:
        if all(word in name for word in words.split("+")):
            return flops, bandwidth
    return math.inf, math.inf


def mfu(flops_per_token: float, tokens_per_s: float, device: str, devices: int = 1) -> float:
    """Model FLOPs utilisation in percent, of all devices; 0 where the peak is not known."""
    return 100.0 * flops_per_token * tokens_per_s / (peaks(device)[0] * devices)
