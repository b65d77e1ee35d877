"""Multiple choice under two controls, which tell whether its score means anything.

A model that prefers a letter scores what its letter's share happens to be; one that picks the
longest option, or what sounds true, scores above guessing and reads no question. With the options
in other places the first is back at guessing; without the question the second scores what it did.
Source: hypothesis-only baselines, arXiv:1805.01042; the order of options, arXiv:2309.03882.
"""

import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence

from nanochat_jax.evals.chatcore.result import ChatResult, ChatTaskResult
from nanochat_jax.evals.core.result import CoreResult, CoreTaskResult
from nanochat_jax.evals.shares import Share, sign_test
from nanochat_jax.results import Check
from nanochat_jax.tasks import Task, choice

log = logging.getLogger(__name__)

CONTROLS = {"shuffled": choice.shuffled, "without-question": choice.without_question}
GUESSING = "no sign of knowledge, for with the options shuffled it does no better than guessing"
READS = "it reads the question"
UNREAD = (
    "no sign that it reads the question: leaving that out makes no difference that shows"
)  # fmt: skip
TOO_FEW = "too few questions to tell"
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

    def under(control: str) -> ChatResult:
        log.info("the same, %s:", control.replace("-", " "))
        changed = {n: t.changed(CONTROLS[control]) for n, t in lettered.items()}
        return scored(changed, answers_dir=folder / control)

    shuffled, blind = map(under, CONTROLS)
    each = ((n, done.tasks[n], shuffled.tasks[n], blind.tasks[n]) for n in lettered)
    return [check(*one) for one in each]


def check(
    name: str, real: ChatTaskResult, shuffled: ChatTaskResult, blind: ChatTaskResult
) -> Check:
    """One task as it is, with its options in other places, and without its question."""
    figures = (
        f"{_percent(real)}, options shuffled {_percent(shuffled)}, without the question "
        f"{_percent(blind)}, guessing {real.baseline:g} %"
    )
    sound, verdict = _verdict(real, shuffled, blind)
    return Check(name, f"{figures}: {verdict}", sound)


def core_checks(done: CoreResult, blind: CoreResult) -> list[Check]:
    """What CORE's multiple choice scores without its questions says of it; there are no places to
    shuffle, for each option is read by itself."""
    return [_core_check(name, done.tasks[name], one) for name, one in blind.tasks.items()]


def _core_check(name: str, real: CoreTaskResult, blind: CoreTaskResult) -> Check:
    figures = (
        f"{_percent(real)}, without the question {_percent(blind)}, guessing {real.baseline:g} %"
    )
    if _too_few(real):
        return Check(name, f"{figures}: {TOO_FEW}", False)
    low, _ = real.interval
    if low <= 0.01 * real.baseline:
        return Check(
            name, f"{figures}: no sign of knowledge, for it does no better than guessing", False
        )
    if not _better(real.right, blind.right):
        return Check(name, f"{figures}: {UNREAD}", False)
    return Check(name, f"{figures}: {READS}")


def _percent(result: Share) -> str:
    return f"{100 * result.accuracy:.1f} %"


def _verdict(
    real: ChatTaskResult, shuffled: ChatTaskResult, blind: ChatTaskResult
) -> tuple[bool, str]:
    if _too_few(real):
        return False, TOO_FEW
    low, _ = shuffled.interval
    if low <= 0.01 * shuffled.baseline:
        return False, GUESSING
    if not _better(real.right, blind.right):
        return False, UNREAD
    if _better(real.right, shuffled.right):
        return True, f"{READS}, but a part of the score is the places of the options"
    return True, f"{READS}, and where the options stand makes no difference that shows"


def _too_few(result: Share) -> bool:
    """Whether no answers to so many questions would show that they are read."""
    return sign_test(result.n, 0) >= LEVEL


def _better(one: Sequence[bool], other: Sequence[bool]) -> bool:
    """Whether more of the same questions are right, by more than chance."""
    only_one = sum(a and not b for a, b in zip(one, other, strict=True))
    only_other = sum(b and not a for a, b in zip(one, other, strict=True))
    return only_one > only_other and sign_test(only_one, only_other) < LEVEL
