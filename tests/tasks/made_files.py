"""A small folder of task files in the published layouts, made here: for what needs any rows."""

import json
import random
from pathlib import Path

LETTERS = "ABCD"
SYLLABLES = "ba co du fe gi ha lo mi nu pe ri sa to vu wa".split()


def write_task_files(folder: Path) -> Path:
    """Writes sums (GSM8K), choices (ARC, MMLU), programs, chats and words; returns the folder."""
    rng = random.Random(0)
    write = lambda name, rows: _write(folder / f"{name}.jsonl", rows)
    for split, count in (("train", 700), ("test", 60)):
        write(f"gsm8k/{split}", [_sum(rng) for _ in range(count)])
        write(f"chat/{split}", [_chat(rng) for _ in range(count)])
    for subset in ("ARC-Easy", "ARC-Challenge"):
        for split in ("train", "validation", "test"):
            write(f"arc/{subset}/{split}", [_arc(rng, i) for i in range(60)])
    for split in ("auxiliary_train", "dev", "test"):
        write(f"mmlu/{split}", [_mmlu(rng) for _ in range(120)])
    write("humaneval/HumanEval", [_program(n) for n in range(8)])
    write("identity/identity_conversations", [_chat(rng) for _ in range(50)])
    words = folder / "english_words" / "words_alpha.txt"
    words.parent.mkdir()
    made = {"".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))) for _ in range(3000)}
    words.write_text("\n".join(sorted(made)) + "\n")
    return folder


def _write(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _sum(rng: random.Random) -> dict:
    x, y = rng.randint(2, 60), rng.randint(2, 60)
    thing = rng.choice(("eggs", "clips", "apples", "stamps"))
    return {
        "question": f"A farm has {x} {thing} and buys {y} more. How many {thing} are there now?",
        "answer": f"There are {x}+{y} = <<{x}+{y}={x + y}>>{x + y} {thing}.\n#### {x + y}",
    }


def _options(rng: random.Random) -> tuple[str, list[str], int]:
    """(question, options, the right one's index)."""
    x, y, right = rng.randint(2, 9), rng.randint(2, 9), rng.randrange(4)
    return f"What is {x} plus {y}?", [str(x + y + i - right) for i in range(4)], right


def _arc(rng: random.Random, number: int) -> dict:
    question, options, right = _options(rng)
    return {
        "id": f"made_{number}", "question": question,
        "choices": {"text": options, "label": list(LETTERS)}, "answerKey": LETTERS[right],
    }  # fmt: skip


def _mmlu(rng: random.Random) -> dict:
    question, options, right = _options(rng)
    return {"question": question, "subject": "sums", "choices": options, "answer": right}


def _program(n: int) -> dict:
    return {
        "task_id": f"HumanEval/{n}", "entry_point": f"add_{n}",
        "prompt": f'def add_{n}(x):\n    """The sum of x and {n}."""\n',
        "canonical_solution": f"    return x + {n}\n",
        "test": f"def check(candidate):\n    assert candidate(2) == {n + 2}\n",
    }  # fmt: skip


def _chat(rng: random.Random) -> list[dict]:
    place = "".join(rng.choices(SYLLABLES, k=3)).capitalize()
    asked = rng.choice((f"Where is {place}?", f"I go to {place}. What should I take?"))
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": f"{place} is by the sea, so take a coat."},
    ]
