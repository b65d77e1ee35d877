"""Controls of multiple choice: a preference for a letter is told from knowledge of an answer."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

from nanochat_jax.evals import chatcore, controls
from nanochat_jax.evals.chatcore import ChatTaskResult
from nanochat_jax.evals.core import CoreResult
from nanochat_jax.evals.shares import sign_test
from nanochat_jax.tasks import arc, choice, gsm8k
from tests.serve.world import BYTES, random_model

LETTERS = "ABCD"
N = 80


def exam(i):
    """A question of four choices, of which the second is right three times in five."""
    text = [f"{word} {i}" for word in ("one", "two", "three", "four")]
    answer = "B" if i % 5 < 3 else LETTERS[i % 4]
    return {
        "question": f"which {i}", "choices": {"text": text, "label": list(LETTERS)},
        "answerKey": answer,
    }  # fmt: skip


EXAM = arc.task([exam(i) for i in range(N)])


@pytest.fixture(scope="module")
def always_b():
    """A real model to which all texts are alike: its blocks add nothing to one same embedding."""
    model = random_model(sequence_len=128, n_layer=1)
    same = lambda path, p: (
        p * 0 if "c_proj" in jax.tree_util.keystr(path)
        else jnp.broadcast_to(p[:1], p.shape) if "wte" in jax.tree_util.keystr(path) else p
    )  # fmt: skip
    params = jax.tree_util.tree_map_with_path(same, model.params)
    head = params["lm_head"]["kernel"]
    toward = params["wte"]["embedding"][0]
    params["lm_head"]["kernel"] = head.at[:, ord("B")].set(10 * toward / jnp.linalg.norm(toward))
    return model.__class__(model.gpt, params)


def test_a_model_that_prefers_a_letter_is_told_to_know_nothing(always_b, tmp_path):
    scored = functools.partial(chatcore.evaluate, always_b, BYTES)
    done = scored({"ARC-Easy": EXAM})
    right = sum(exam(i)["answerKey"] == "B" for i in range(N))
    assert done.tasks["ARC-Easy"].correct == right > 0.6 * N
    written = gsm8k.task([{"question": "1+1", "answer": "#### 2"}])
    tasks = {"ARC-Easy": EXAM, "GSM8K": written}
    (found,) = controls.checks(tasks, done, scored, tmp_path)
    moved = sum(choice.shuffled(arc.question(row)).answer == "B" for row in EXAM.rows.rows)
    assert found.score == "ARC-Easy" and not found.sound
    assert found.says == (
        f"{100 * right / N:.1f} %, options shuffled {100 * moved / N:.1f} %, without the question "
        f"{100 * right / N:.1f} %, guessing 25 %: no sign of knowledge, for with the options "
        "shuffled it does no better than guessing"
    )


def result(*right):
    """Questions in blocks: (how many, whether they are right)."""
    marks = [mark for count, mark in right for _ in range(count)]
    return ChatTaskResult(sum(marks), len(marks), 25.0, right=marks)


FIFTY = result((100, True), (100, False))
UNREAD = "no sign that it reads the question: leaving that out makes no difference that shows"


@pytest.mark.parametrize(("shuffled", "blind", "sound", "verdict"), [
    (FIFTY, result((50, True), (150, False)), True, "where the options stand makes no difference"),
    # 10 questions lost and 12 others won: the same
    (FIFTY, result((90, True), (12, False), (10, True), (88, False)), False, UNREAD),
    (result((56, True), (144, False)), result((50, True), (150, False)), False, "guessing"),
    (result((75, True), (125, False)), result((50, True), (150, False)), True, "a part of"),
])  # fmt: skip
def test_what_is_said_follows_from_tests_of_the_same_questions(shuffled, blind, sound, verdict):
    found = controls.check("MMLU", FIFTY, shuffled, blind)
    assert found.sound == sound and verdict in found.says.split("guessing 25 %: ")[1]


@pytest.mark.parametrize(("real", "blind", "sound", "verdict"), [
    (FIFTY, result((50, True), (150, False)), True, "it reads the question"),
    (FIFTY, result((90, True), (12, False), (10, True), (88, False)), False, UNREAD),
    (result((56, True), (144, False)), result((20, True), (180, False)), False, "no better than"),
])  # fmt: skip
def test_core_s_choices_are_judged_by_the_question_alone(real, blind, sound, verdict):
    core = lambda found: CoreResult({"piqa": found}, {})
    (found,) = controls.core_checks(core(real), core(blind))
    assert found.sound == sound and verdict in found.says.split("guessing 25 %: ")[1]


@pytest.mark.parametrize(("n", "told"), [(5, "too few questions to tell"), (6, "it reads the")])
def test_of_too_few_questions_nothing_is_told(n, told):
    every, no = result((n, True)), result((n, False))
    core = lambda found: CoreResult({"piqa": found}, {})
    for found in (controls.check("MMLU", every, every, no),
                  *controls.core_checks(core(every), core(no))):  # fmt: skip
        assert found.says.split("guessing 25 %: ")[1].startswith(told)
        assert found.sound == (n == 6)


def test_the_sign_test_is_exact():
    assert sign_test(0, 0) == 1.0 and sign_test(3, 3) == 1.0
    assert sign_test(5, 0) == sign_test(0, 5) == pytest.approx(2 / 32)
    assert sign_test(9, 1) == pytest.approx(2 * 11 / 1024)
    # of many, that of the normal distribution with its correction for whole numbers
    assert sign_test(1060, 940) == pytest.approx(math.erfc(119 / math.sqrt(2000) / math.sqrt(2)),
                                                 rel=0.01)  # fmt: skip
