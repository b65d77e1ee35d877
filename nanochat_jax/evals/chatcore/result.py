"""What ChatCORE comes to: scores of tasks, their mean, and how sure they are."""

import dataclasses
from collections.abc import Mapping, Sequence

from nanochat_jax.evals.chatcore.catalog import BASELINES
from nanochat_jax.evals.shares import MeanResult, Share
from nanochat_jax.results import Exchange, Score


@dataclasses.dataclass(frozen=True)
class ChatTaskResult(Share):
    """A task's score: problems of which at least one answer is right.

    `pass_at`: k -> chance that one of k answers is right (1: the share of right answers).
    """

    pass_at: Mapping[int, float] = dataclasses.field(default_factory=dict)
    cropped: int = 0  # problems whose beginning did not fit
    unfinished: int = 0  # answers that the limit of tokens ended
    exchanges: Sequence[Exchange] = ()  # some of the first ones
    right: Sequence[bool] = dataclasses.field(default=(), repr=False)  # of each problem

    def score(self, name: str) -> Score:
        """The share, with pass@k where several answers were sampled."""
        return super().score(name, also={f"pass@{k}": x for k, x in self.pass_at.items() if k > 1})


class ChatResult(MeanResult):
    """ChatCORE, of the tasks that could be scored, in its own order."""

    name = "ChatCORE metric"
    total = len(BASELINES)


def notes(result: ChatResult) -> str:
    """What a reader of the scores should know, as a Markdown list."""
    lines = [f"- not scored: {name} ({why})" for name, why in result.skipped.items()]
    for name, t in result.tasks.items():
        if t.cropped:
            lines.append(f"- {name}: {t.cropped} prompts cut at their beginning to fit")
        if t.unfinished:
            lines.append(f"- {name}: {t.unfinished} answers ended by the limit of tokens")
    return "\n".join(lines)
