"""How much was right, how sure that is, and what it means next to guessing."""

import dataclasses
import math
from collections.abc import Sequence

Z = 1.959964  # of a 95 % interval


@dataclasses.dataclass(frozen=True)
class Share:
    """`correct` of `n` questions; `baseline`: what guessing scores, in percent."""

    correct: int
    n: int
    baseline: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def centered(self) -> float:
        """0 is guessing, 1 all right."""
        return centered(self.accuracy, self.baseline)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the accuracy lies with 95 % (Wilson)."""
        return wilson(self.correct, self.n)


def centered(accuracy: float, baseline: float) -> float:
    """Accuracy on a scale where `baseline` percent is 0 and all right is 1."""
    return (accuracy - 0.01 * baseline) / (1.0 - 0.01 * baseline)


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson 1927, doi:10.1080/01621459.1927.10502953."""
    share, z2 = correct / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_centered(shares: Sequence[Share]) -> float:
    """The mean of centered scores: what CORE and ChatCORE are."""
    return sum(s.centered for s in shares) / len(shares)


def half_width(shares: Sequence[Share]) -> float:
    """Half of the 95 % interval of that mean: the shares' intervals, as independent errors."""
    widths = [(s.interval[1] - s.interval[0]) / 2 / (1 - 0.01 * s.baseline) for s in shares]
    return math.hypot(*widths) / len(widths)
