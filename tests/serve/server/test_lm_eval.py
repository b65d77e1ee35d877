"""The recipe of docs/lm-eval.md: lm-eval against our server, on tasks that lie in a folder."""

import json
import math
import os
import re
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest

from nanochat_jax.files import read_json_lines
from tests import needs
from tests.serve.programs import ROOT
from tests.serve.world import BYTES, random_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # its packages import for long
needs.package("lm_eval")

CHOICES = [("The sky is", [" blue", " a fish", " loud"]), ("Grüße aus", [" Wien", " dem All 🙂"])]
TEXTS = ["The valley sleeps.", "Mira lives by the harbor, they say."]
TASKS = {
    "choose": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
target_delimiter: ""
metric_list: [{metric: acc}]
""",
    "write": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "x"
generation_kwargs: {until: ["\\n", "a", "b", "c", "d", "e"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
""",
    "read": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with the three tasks and their rows."""
    folder = tmp_path_factory.mktemp("tasks")
    questions = [{"question": q, "choices": c} for q, c in CHOICES]
    rows = {"choose": questions, "write": questions, "read": [{"text": text} for text in TEXTS]}
    for name, body in TASKS.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        (folder / f"{name}.yaml").write_text(f"{head}    test: {data}\ntest_split: test\n{body}")
    return folder


def recipe(number: int, url: str, tasks, names: str, **changes) -> list[str]:
    """The documented command `number`, told our address, tasks and context."""
    text = (ROOT / "docs" / "lm-eval.md").read_text()
    commands = re.findall(r"^lm_eval run(?:.|\n)*?(?=\n```)", text, re.MULTILINE)
    told = commands[number].replace("http://127.0.0.1:8000", url).replace("2048", "128")
    for before, after in changes.items():
        told = told.replace(f"{before}=False", f"{before}={after}")
    told = re.sub(r"--tasks \S+", f"--tasks {names} --include_path {tasks}", told)
    return shlex.split(told.replace("\\\n", " "))[1:]


# Its packages take longer to import than our questions to answer: one process for all commands.
DRIVER = """
import json, runpy, sys
for command in json.loads(sys.argv[1]):
    sys.argv = ["lm_eval", *command]
    runpy.run_module("lm_eval", run_name="__main__")
"""


@pytest.fixture(scope="module")
def found(server, tasks, tmp_path_factory) -> list[dict[str, list[dict]]]:
    """Of each command what lm-eval wrote down of every question, by task."""
    out = tmp_path_factory.mktemp("found")
    commands = [
        recipe(0, server.url, tasks, "choose,write"),
        recipe(0, server.url, tasks, "read", tokenized_requests=True),
        recipe(1, server.url, tasks, "write"),
    ]
    told = [
        [*command, "--output_path", str(out / str(i)), "--log_samples"]
        for i, command in enumerate(commands)
    ]
    offline = {"HF_HOME": str(out / "hub"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(told)],
        env=os.environ | offline, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [samples(out / str(i)) for i in range(len(commands))]


def samples(out) -> dict[str, list[dict]]:
    return {file.name.split("_")[1]: read_json_lines(file) for file in out.rglob("samples_*.jsonl")}


@pytest.fixture(scope="module")
def logprob():
    """Our own score: log-probability of `text` after `before`, the whole after a bos."""
    model = random_model(sequence_len=128)

    def score(before: str, text: str) -> tuple[float, bool]:
        ids = [BYTES.get_bos_token_id(), *BYTES.encode(before + text)]
        logits_TV = jax.nn.log_softmax(model(ids)[0])
        first = len(BYTES.encode(before)) + 1
        own = [logits_TV[i - 1, ids[i]] for i in range(first, len(ids))]
        best = [int(logits_TV[i - 1].argmax()) == ids[i] for i in range(first, len(ids))]
        return float(np.sum(own)), all(best)

    return score


def test_choices_are_scored_as_the_model_scores_them(found, logprob):
    for sample in found[0]["choose"]:
        for question, answer in zip(sample["arguments"].values(), sample["resps"], strict=True):
            wanted, greedy = logprob(question["arg_0"], question["arg_1"])
            got = answer[0]
            assert math.isclose(float(got[0]), wanted, abs_tol=1e-3)
            assert str(got[1]) == str(greedy)
    assert len(found[0]["write"]) == len(CHOICES)
    assert all(isinstance(sample["resps"][0][0], str) for sample in found[0]["write"])


def test_perplexity_of_token_ids_is_the_models_own(found, logprob):
    for sample, text in zip(found[1]["read"], TEXTS, strict=True):
        answer = np.ravel(sample["resps"])[0]
        assert math.isclose(float(answer), logprob("", text)[0], abs_tol=1e-3)


def test_chats_are_answered_through_the_chat_endpoint(found):
    assert len(found[2]["write"]) == len(CHOICES)
