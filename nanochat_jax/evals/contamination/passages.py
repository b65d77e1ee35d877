"""What is looked for of each task: the questions of its rows, and their right answers."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax.evals import answers_log, probes
from nanochat_jax.evals.chatcore.catalog import BASELINES
from nanochat_jax.evals.contamination.index import Passage
from nanochat_jax.evals.core import bundle
from nanochat_jax.evals.core.bundle import CoreTask, Item
from nanochat_jax.tasks import Task
from nanochat_jax.tokenizer.chat_format import parts_of

# What the bundle puts before a question: "Question: ", "WORLD HISTORY: ". Elsewhere it has none.
LABEL = re.compile(r"\A[^\n:.?]{1,40}: ")


@dataclasses.dataclass(frozen=True)
class Sought:
    """The rows of a task that are looked for.

    Args:
        baseline: what guessing scores, in percent.
        digest: how the answers to these rows are told from others; "": none are kept.
        answers: the folder of those, in that of the evaluation.
    """

    passages: Sequence[Passage]
    baseline: float = 0.0
    digest: str = ""
    answers: str = ""


def of_chat(task: Task, name: str) -> Sought:
    """A chat task: the question without the words around it, and the right choice or the text of
    the answer."""
    rows = [task[i] for i in range(len(task))]
    if task.question is None:
        passages = list(map(_of_conversation, rows))
    else:
        asked = [task.question(task.rows[i]) for i in range(len(task))]
        passages = [Passage(q.text, q.right) for q in asked]
    return Sought(passages, BASELINES.get(name, 0.0), answers_log.digest_of(rows), "chat")


def of_core(folder: pathlib.Path, most: int = -1) -> dict[str, Sought]:
    """The tasks of CORE whose files are there, the first `most` rows of each (-1: all).

    Raises as `bundle.read` and `bundle.rows`.
    """
    found = {}
    for task in bundle.read(folder):
        if bundle.file_of(task) is not None and (items := bundle.rows(task, most)):
            passages = [_of_item(task, item) for item in items]
            digest = answers_log.digest_of(items)
            found[task.label] = Sought(passages, task.baseline, digest, "core")
    return found


def of_probes(folder: pathlib.Path) -> dict[str, Sought]:
    """The probes of the embedded world, by kind; stories have no answer to look for."""
    kinds: dict[str, list[Passage]] = {}
    for probe in probes.load_probes(folder):
        answer = next(iter(probe["answers"]), "")
        kinds.setdefault(probe["kind"], []).append(Passage(probe["question"], answer))
    return {f"probe: {kind}": Sought(passages) for kind, passages in kinds.items()}


def _of_conversation(conversation: Mapping[str, Any]) -> Passage:
    *_, question, answer = (text_of(message["content"]) for message in conversation["messages"])
    return Passage(question, answer)


def text_of(content: Any) -> str:
    """The words of a message, those of tools too."""
    return " ".join(part.text for part in parts_of(content))


def _of_item(task: CoreTask, item: Item) -> Passage:
    if task.kind == "multiple_choice":
        question, answer = item["query"], item["choices"][item["gold"]]
    elif task.kind == "schema":
        question, answer = item["context_options"][item["gold"]], item["continuation"]
    else:
        question, answer = item["context"], item["continuation"]
    return Passage(LABEL.sub("", question), answer)
