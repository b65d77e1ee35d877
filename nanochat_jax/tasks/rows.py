"""A task over a table of rows: what a row asks, and how an answer is marked."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nanochat_jax.tasks.mixture import Conversation

Kind = Literal["categorical", "generative"]
Mark = Callable[[Conversation, str], float]


@dataclasses.dataclass(frozen=True)
class RowTask:
    """Conversations made of rows, and the marks of answers to them.

    Args:
        rows: anything with a length and an index; each row is turned when it is asked for.
        kind: `categorical`: the answer is one of the conversation's `letters`; `generative`: free
            text; None: nothing to mark, the rows are only to be learnt.
        score: (conversation, answer) -> 0.0 or 1.0.
        reward: the same for reinforcement learning: takes any text, never raises.
    """

    name: str
    rows: Sequence[Any]
    conversation: Callable[[Any], dict[str, Any]]
    kind: Kind | None = None
    score: Mark | None = None
    reward: Mark | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.conversation(self.rows[index])


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """The same rows in the order of Hugging Face's `Dataset.shuffle(seed)`."""

    rows: Sequence[Mapping[str, Any]]
    seed: int = 42

    @functools.cached_property
    def order(self) -> np.ndarray:
        return np.random.default_rng(self.seed).permutation(len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[int(self.order[index])]
