"""Multiple choice is answered as by the original: prompts, letters, their logits, accuracy."""

import functools
import re

import pytest

from nanochat_jax.evals import chatcore
from tests.evals import letters
from tests.golden.conftest import files, load_json
from tests.golden.models import golden_model
from tests.golden.numbers import absolute
from tests.golden.task_files import golden_task
from tests.golden.tokenizers import golden_tokenizer

TASKS = files("tasks_*.json")


def runs() -> list:
    """A parameter (path, number of the run) for each categorical evaluation."""
    return [
        pytest.param(p.values[0], n, id=f"{p.id}/{n}", marks=p.marks)
        for p in TASKS
        for n in range(
            len(load_json(p.values[0])["chat_eval"]["categorical"]) if p.values[0] else 1
        )
    ]


def model_of(path):
    return golden_model(path.parent / load_json(path)["chat_eval"]["model"])


@functools.cache
def answers(path, name: str):
    """(conversations, choices), in batches of our own: the original's change nothing either."""
    task = golden_task(path, name)
    conversations = [task[i] for i in range(len(task))]
    tokenizer = golden_tokenizer(path.parent)
    return conversations, letters.choose(model_of(path), tokenizer, conversations)


def accuracy(task, conversations, choices) -> float:
    marks = [task.score(c, x.letter) for c, x in zip(conversations, choices, strict=True)]
    return sum(marks) / len(marks)


@pytest.mark.parametrize(("path", "n"), runs())
def test_letters_and_accuracy_are_the_same(path, n):
    golden = load_json(path)["chat_eval"]["categorical"][n]
    conversations, choices = answers(path, golden["task"])
    assert [x.letter for x in choices] == golden["predicted_letters"]
    assert [c["messages"][-1]["content"] for c in conversations] == golden["gold"]
    task = golden_task(path, golden["task"])
    assert accuracy(task, conversations, choices) == pytest.approx(golden["accuracy"])


@pytest.mark.parametrize(("path", "n"), runs())
def test_prompts_and_letter_logits_are_the_same(path, n):
    golden = load_json(path)["chat_eval"]["categorical"][n]
    conversations, choices = answers(path, golden["task"])
    if "prompt_ids" in golden:
        tokenizer = golden_tokenizer(path.parent)
        prompts = [tokenizer.render_for_completion(c) for c in conversations]
        assert prompts == golden["prompt_ids"]
    for choice, want in zip(choices, golden.get("letter_logits", []), strict=False):
        absolute(choice.logits, want, "task_logits")


@pytest.mark.parametrize("path", TASKS)
def test_the_first_problems_alone_have_their_accuracy(path):
    name = next(n for n in load_json(path)["tasks"] if n.startswith("ARC-Easy"))
    task = golden_task(path, name).view(stop=5)
    conversations, choices = answers(path, name)
    want = load_json(path)["chat_eval"]["arc_easy_first5_accuracy"]
    assert accuracy(task, conversations[:5], choices[:5]) == pytest.approx(want)


@pytest.mark.slow
@pytest.mark.parametrize("path", TASKS)
def test_written_answers_have_the_same_accuracy(path):
    golden = load_json(path)
    name = next(n for n in golden["tasks"] if n.startswith("GSM8K") and n.endswith("test"))
    longest = int(re.search(r"max_new_tokens=(\d+)", golden["chat_eval"]["note"])[1])
    task, tokenizer = golden_task(path, name), golden_tokenizer(path.parent)
    sampling = chatcore.SamplingParams(max_new_tokens=longest)
    done = chatcore.evaluate(model_of(path), tokenizer, {"GSM8K": task}, sampling=sampling)
    want = golden["chat_eval"]["generative_gsm8k_accuracy_greedy"]
    assert done.tasks["GSM8K"].accuracy == pytest.approx(want)
