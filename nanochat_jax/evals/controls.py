"""Multiple choice under two controls, which tell whether its score means anything.

A model that prefers a letter scores what its letter's share happens to be; one that picks the
longest option, or what sounds true, scores above guessing and reads no question. With the options
in other places the first is back at guessing; without the question the second scores what it did.
Source: hypothesis-only baselines, arXiv:1805.01042; the order of options, arXiv:2309.03882.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence

from nanochat_jax.evals.chatcore.result import ChatResult, ChatTaskResult
from nanochat_jax.evals.shares import sign_test
from nanochat_jax.results import Check
from nanochat_jax.tasks import Task, choice

CONTROLS = {"shuffled": choice.shuffled, "without-question": choice.without_question}
LEVEL = 0.05  # of the tests: an interval of 95 % in other words


def checks(
    tasks: Mapping[str, Task], done: ChatResult, scored: Callable[..., ChatResult],
    folder: pathlib.Path,
) -> list[Check]:  # fmt: skip
    """What the controls say of each task of multiple choice.

    Args:
        done: the scores of the tasks as they are.
        scored: (tasks, answers_dir=) -> their scores; as `chatcore.evaluate` of the same model.
        folder: every answer is kept there, in a folder for each control.
    """
    lettered = {name: task for name, task in tasks.items() if task.question is not None}
    if not lettered:
        return []
    shuffled, blind = (
        scored({n: t.changed(change) for n, t in lettered.items()}, answers_dir=folder / control)
        for control, change in CONTROLS.items()
    )
    each = ((n, done.tasks[n], shuffled.tasks[n], blind.tasks[n]) for n in lettered)
    return [check(*one) for one in each]


def check(
    name: str, real: ChatTaskResult, shuffled: ChatTaskResult, blind: ChatTaskResult
) -> Check:
    """One task as it is, with its options in other places, and without its question."""
    percent = lambda result: f"{100 * result.accuracy:.1f} %"
    figures = (
        f"{percent(real)}, options shuffled {percent(shuffled)}, without the question "
        f"{percent(blind)}, guessing {real.baseline:g} %"
    )
    sound, verdict = _verdict(real, shuffled, blind)
    return Check(name, f"{figures}: {verdict}", sound)


def _verdict(
    real: ChatTaskResult, shuffled: ChatTaskResult, blind: ChatTaskResult
) -> tuple[bool, str]:
    low, _ = shuffled.interval
    if low <= 0.01 * shuffled.baseline:
        return (
            False,
            "no sign of knowledge, for with the options shuffled it does no better than guessing",
        )
    if not _better(real.right, blind.right):
        return (
            False,
            "it chooses by the options alone, since the question makes no difference that shows",
        )
    if _better(real.right, shuffled.right):
        return True, "it reads the question, but a part of the score is the places of the options"
    return True, "it reads the question, and where the options stand makes no difference that shows"


def _better(one: Sequence[bool], other: Sequence[bool]) -> bool:
    """Whether more of the same questions are right, by more than chance."""
    only_one = sum(a and not b for a, b in zip(one, other, strict=True))
    only_other = sum(b and not a for a, b in zip(one, other, strict=True))
    return only_one > only_other and sign_test(only_one, only_other) < LEVEL
