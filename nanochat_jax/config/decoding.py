"""How the next token may be chosen beside top-k, temperature and top-p: names, ranges, and off.

Said once for requests, flags and the API. The names are OpenAI's, `repetition_penalty` and `min_p`
those of Hugging Face's and vLLM's.
"""

from typing import Any, NamedTuple


class Range(NamedTuple):
    """What a number may be, and where it does nothing."""

    low: float
    high: float
    off: float


ADJUSTMENTS = {
    # Its definition takes anything above 0. Beyond these bounds logits overflow, and below 1 it
    # makes a model repeat itself, which needs no hundredfold.
    "repetition_penalty": Range(0.01, 10.0, 1.0),
    "presence_penalty": Range(-2.0, 2.0, 0.0),
    "frequency_penalty": Range(-2.0, 2.0, 0.0),
    "min_p": Range(0.0, 1.0, 0.0),
}
BIAS = Range(-100.0, 100.0, 0.0)
MAX_BIASES = 300  # tokens whose logits one request may move, as OpenAI's API has it


def adjusts(settings: Any) -> bool:
    """Whether any of these numbers, attributes of `settings`, does something."""
    return any(getattr(settings, name) != each.off for name, each in ADJUSTMENTS.items())
