"""ChatCORE: problems answered together get the marks of problems answered alone, and are kept."""

import json
import math

import pytest

from nanochat_jax import sharding
from nanochat_jax.evals import chatcore, sandbox
from nanochat_jax.evals.chatcore import ChatTaskResult, SamplingParams
from nanochat_jax.evals.chatcore.result import ChatResult
from nanochat_jax.serve.engine import Engine
from nanochat_jax.tasks import arc, gsm8k, humaneval
from tests.evals import letters
from tests.serve.world import BYTES, random_model, spoken, talking_model

LONG = 128  # tokens of the test's longest prompt with its answer
SHORT = SamplingParams(max_new_tokens=6)


def exam(i):
    labels = ["A", "B", "C", "D"][: 2 + i % 3]
    text = [f"{i * k}" for k in range(len(labels))]
    return {
        "question": "q" * (i % 4), "choices": {"text": text, "label": labels},
        "answerKey": labels[i % len(labels)],
    }  # fmt: skip


CHOICES = arc.task([exam(i) for i in range(11)])
SUMS = gsm8k.task([{"question": f"{i}?", "answer": f"#### {i}"} for i in range(7)])
TASKS = {"ARC-Easy": CHOICES, "GSM8K": SUMS}


@pytest.fixture(scope="module")
def model():
    return random_model(sequence_len=LONG, n_layer=1)


def ask(model, tasks=TASKS, **more):
    return chatcore.evaluate(
        model, BYTES, tasks, **{"sampling": SHORT, "batch_size": 4, **more}
    ).tasks


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_grades_are_those_of_one_problem_at_a_time(model, tmp_path):
    found = ask(model, answers_dir=tmp_path)
    for i, line in enumerate(sorted(lines(tmp_path / "ARC-Easy.jsonl")[1:], key=_number)):
        (alone,) = letters.choose(model, BYTES, [CHOICES[i]], rows=1)
        assert line["letter"] == alone.letter
        assert line["correct"] == bool(CHOICES.score(CHOICES[i], alone.letter))
    engine = Engine(model, BYTES, slots=1)
    for i, line in enumerate(sorted(lines(tmp_path / "GSM8K_n1_t0_k50_m6.jsonl")[1:], key=_number)):
        (alone,) = engine.complete([BYTES.render_for_completion(SUMS[i])], 6)
        assert line["answers"] == [BYTES.decode(alone.tokens)]
    assert (found["ARC-Easy"].n, found["GSM8K"].n) == (11, 7)
    kept = lines(tmp_path / "ARC-Easy.jsonl")[1:]
    assert found["ARC-Easy"].correct == sum(line["correct"] for line in kept)


def _number(line):
    return line["question"]


@pytest.mark.slow
def test_grades_are_the_same_on_any_mesh(model):
    assert ask(model, mesh=sharding.make_mesh("data=2,fsdp=1")) == ask(model)


class Stopped(Exception):
    """What ends an evaluation half-way."""


def test_an_interrupted_evaluation_goes_on_where_it_was(model, tmp_path):
    whole, asked = ask(model), []

    def stop(conversation, answer):
        asked.append(conversation["messages"][0]["content"])
        if len(asked) == 5:
            raise Stopped
        return gsm8k.score(conversation, answer)

    sums = gsm8k.task(SUMS.rows.rows)
    object.__setattr__(sums, "score", stop)
    with pytest.raises(Stopped):
        ask(model, {"ARC-Easy": CHOICES, "GSM8K": sums}, answers_dir=tmp_path)
    kept = lines(tmp_path / "GSM8K_n1_t0_k50_m6.jsonl")[1:]
    assert ask(model, {"ARC-Easy": CHOICES, "GSM8K": sums}, answers_dir=tmp_path) == whole
    again = asked[-(7 - len(kept)) :]
    assert 0 < len(kept) < 7 and not {line["asked"] for line in kept} & set(again)
    before = len(asked)
    assert ask(model, {"ARC-Easy": CHOICES, "GSM8K": sums}, answers_dir=tmp_path) == whole
    assert len(asked) == before


def test_grades_of_another_model_are_not_taken_over(model, tmp_path):
    ask(model, answers_dir=tmp_path)
    other = random_model(sequence_len=LONG, n_layer=1, seed=3)
    assert ask(other, answers_dir=tmp_path) == ask(other)


def test_the_first_problems_alone_can_be_asked(model):
    found = ask(model, max_problems=3)
    assert {name: task.n for name, task in found.items()} == {"ARC-Easy": 3, "GSM8K": 3}
    for name, task in found.items():  # all of so few are shown, wrong ones first
        shown = task.exchanges
        assert [e.kind for e in shown] == [name] * 3 and shown[0].question and shown[0].wanted
        assert [e.right for e in shown] == [False] * (3 - task.correct) + [True] * task.correct


def test_prompts_beyond_ten_contexts_are_cut_and_counted():
    small = random_model(sequence_len=6, n_layer=1)
    found = ask(small)
    assert found["GSM8K"].cropped == 0 and found["ARC-Easy"].cropped == 11


def test_a_problem_is_passed_when_one_of_several_answers_is_right(model, tmp_path):
    warm = SamplingParams(num_samples=4, max_new_tokens=4, temperature=1.0, top_k=None)
    right = lambda conversation, answer: float(len(answer.encode()) % 2)
    sums = gsm8k.task(SUMS.rows.rows)
    object.__setattr__(sums, "score", right)
    found = ask(model, {"GSM8K": sums}, sampling=warm, answers_dir=tmp_path)["GSM8K"]
    kept = lines(tmp_path / "GSM8K_n4_t1_kNone_m4.jsonl")[1:]
    assert found.correct == sum(any(line["marks"]) for line in kept)
    assert found.pass_at[1] == pytest.approx(sum(sum(line["marks"]) for line in kept) / 28)
    assert found.pass_at[4] == found.accuracy and found.pass_at[1] <= found.pass_at[2]


def test_programs_are_graded_by_running_them_in_the_sandbox(tmp_path):
    prompt = "def f(x):\n"
    row = {
        "prompt": prompt, "canonical_solution": "    return x + 1\n", "entry_point": "f",
        "test": "def check(c):\n    assert c(1) == 2\n",
    }  # fmt: skip
    wrong = row | {"test": "def check(c):\n    assert c(1) == 3\n"}
    task = humaneval.task([row, wrong], sandbox.execute)
    said = talking_model(spoken("```python\ndef f(x): return x + 1\n```"))
    sampling = SamplingParams(max_new_tokens=48)
    found = ask(said, {"HumanEval": task}, sampling=sampling, answers_dir=tmp_path)["HumanEval"]
    assert (found.correct, found.n, found.unfinished) == (1, 2, 0)
    (kept,) = [x for x in lines(tmp_path / "HumanEval_n1_t0_k50_m48.jsonl")[1:] if x["correct"]]
    assert kept["asked"] == prompt and "return x + 1" in kept["answers"][0]


def test_no_task_is_an_error_that_says_where_tasks_come_from(model):
    with pytest.raises(ValueError, match="--task-data DIR"):
        chatcore.evaluate(model, BYTES, {})


def test_the_metric_is_the_mean_above_guessing():
    tasks = {"MMLU": ChatTaskResult(40, 100, 25.0), "GSM8K": ChatTaskResult(10, 100, 0.0)}
    done = ChatResult(tasks, {"HumanEval": "no rows"})
    assert done.metric == pytest.approx(((0.4 - 0.25) / 0.75 + 0.1) / 2)
    assert done.title == "ChatCORE metric (2 of 6 tasks)"
    mmlu, sums = done.details
    assert (sums.name, sums.value, sums.n, sums.unit) == ("GSM8K", 0.1, 100, "share")
    assert 0.055 < sums.low < 0.1 < sums.high < 0.175 and mmlu.chance == 0.25
    widths = ((mmlu.high - mmlu.low) / 2 / 0.75, (sums.high - sums.low) / 2)
    assert done.half_width == pytest.approx(math.hypot(*widths) / 2)
    assert chatcore.notes(done) == "- not scored: HumanEval (no rows)"
    every = ChatResult(dict.fromkeys(chatcore.BASELINES, tasks["GSM8K"]), {})
    assert every.title == "ChatCORE metric"
