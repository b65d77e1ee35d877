"""HumanEval: functions to write from their description, scored by running hidden tests.

Programs are run by the caller's `execute`; nothing here runs any. Source: arXiv:2107.03374.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nanochat_jax.tasks.task import Task, shuffled
from nanochat_jax.tokenizer.chat_format import Conversation, exchange

FENCED = re.compile(r"```(?:python)?\s*\n(.*?)\n```", re.DOTALL)
Execute = Callable[[str], bool]


def task(
    rows: Sequence[Mapping[str, Any]], execute: Execute | None = None, name: str = "HumanEval"
) -> Task:
    """The problems in nanochat's order; `execute` runs a program in a sandbox: did it end well?

    Without one the problems can be read, not scored.
    """
    run = functools.partial(score, execute=execute)
    return Task(name, shuffled(rows), conversation, "generative", run, run)


def conversation(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row `{"prompt", "canonical_solution", "entry_point", "test"}`."""
    solution = f"{row['prompt']}\n{row['canonical_solution']}"
    return exchange(row["prompt"], solution, entry_point=row["entry_point"], test=row["test"])


def imports(prompt: str) -> str:
    """The import lines at the head of a prompt, between blank lines and comments."""
    found = []
    for line in map(str.strip, prompt.split("\n")):
        if line.startswith(("import ", "from ")):
            found.append(line)
        elif line and not line.startswith("#"):
            break
    return "\n".join(found)


def code(answer: str) -> str:
    """The first fenced block of an answer, else all of it."""
    # Chat models wrap code in Markdown and explain it; completions of base models are bare code.
    found = FENCED.search(answer)
    return (found[1] if found else answer).strip()


def program(conversation: Conversation, answer: str) -> str:
    """What is run: imports of the prompt, the answer's code, the tests, and the call of them."""
    # A chat model writes the function anew and leaves out the imports above the prompt's.
    head = imports(conversation["messages"][0]["content"])
    tests = f"{conversation['test']}\ncheck({conversation['entry_point']})"
    return "\n\n".join((head, code(answer), tests))


def score(conversation: Conversation, answer: str, execute: Execute | None = None) -> float:
    """1.0 where the tests pass. Raises ValueError without `execute`."""
    if execute is None:
        raise ValueError("HumanEval runs programs: build the task with execute=, a sandbox")
    return float(execute(program(conversation, answer)))
