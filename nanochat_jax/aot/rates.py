"""How much of a card's peaks kernels reach: the assumptions of every estimate, in one place.

One set for all cards and programs: published measurements, and single kernels of ours on an H100.
None is fitted to a whole program.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """Shares of peaks, and what no peak says."""

    # H200, 8192^3, random numbers: 788 of 989 TFLOP/s (zeros run 13 % faster). Cross entropy of
    # 32,768 x 2,560 x 128,256 on an H100, its pointwise passes included: 660 forward, 645 with
    # gradients (marin issue 6596). Widths of 1,280 to 2,048 lie between.
    products: float = 0.70
    # cuBLASLt reaches 1.2 to 1.3 of 1.979 PFLOP/s at these widths, without the casts, which are
    # counted as kernels of their own.
    float8: float = 0.62
    # cuDNN, causal, heads of 128, rows of 2,048, H100: 485 TFLOP/s forward (axlearn's benchmark);
    # backward 465 without a mask (arXiv:2407.08608, figure 6), so about 400 with one.
    attention: float = 0.49
    attention_backward: float = 0.40
    # H100: 2.6 to 2.7 of 3.35 TB/s in kernels that read and write (docs/log.md, 26 November).
    memory: float = 0.80
    # NCCL on eight H100s: 360 of 450 GB/s a direction (nccl-tests, large arrays).
    link: float = 0.80
    # 400 Gb/s InfiniBand, one adapter a card.
    between_nodes: float = 50e9
    network: float = 0.85
    # Of an exchange, before the first byte; grows with the devices, which is left out.
    exchange_us: float = 20.0
    # What a kernel takes beside its bytes. Decoding on an H100, inside of a graph: 5.0 us for 3.3
    # MB, 5.6 us for 5.2 MB, 8.1 us for 13.1 MB (docs/log.md, 26 November).
    kernel_us: float = 3.5

    def lines(self) -> list[str]:
        """The assumptions as text, a line each."""
        return [f"{name} {value:g}" for name, value in dataclasses.asdict(self).items()]
