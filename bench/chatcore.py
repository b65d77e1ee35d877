"""ChatCORE in full batches, against one problem at a time.

`python bench/chatcore.py [--task-data DIR] [--max-problems 32] [--max-new-tokens 128] [--depth 4]
[--rounds 3]` answers the same problems with the same random model both ways, in turn, and prints
problems a second round by round; the last line is one JSON object. One at a time is as the original
does it, but compiled: a prompt a forward pass with the logits of every position, padded to a
multiple of 128; a problem an engine of one row, with its tool and its cache. Compilation is left
out of both (each way runs once before), tokenizing and marking are in both. A random model never
ends an answer, so all are of the full length; programs are run in the sandbox in both.
Without a folder of task files the problems are made up, of the kinds and lengths that ChatCORE has.
"""

import argparse
import json
import logging
import pathlib
import random
import statistics
import tempfile

from core import random_model, timed

WORDS = 600
# Words of a question, of each of its choices; of worked answers.
ARC, MMLU, SUM = (21, 5), (45, 8), (45, 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task-data", type=pathlib.Path)
    parser.add_argument("--max-problems", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--recipe", default="classic")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(args, pathlib.Path(folder))))


def measure(args: argparse.Namespace, folder: pathlib.Path) -> dict:
    """Figures of all rounds, and of each task the median ratio."""
    from nanochat_jax.evals.chatcore import Sampling, engines, evaluate, exams
    from nanochat_jax.serve.engine import Engine
    from nanochat_jax.tasks import View
    from nanochat_jax.tokenizer import Tokenizer

    data = args.task_data or made_up(folder / "tasks", args.max_problems)
    tasks, skipped = exams.at_hand(folder, str(data))
    tasks = {name: View(task, stop=args.max_problems) for name, task in tasks.items()}
    rows = (task[i] for task in tasks.values() for i in range(len(task)))
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    tokenizer = Tokenizer.train(texts, args.vocab)
    model = random_model(args, tokenizer)
    sampling = Sampling(max_new_tokens=args.max_new_tokens)
    written = [task for task in tasks.values() if task.kind == "generative"]
    writers = engines(model, tokenizer, written, sampling)
    alone = Engine(model, tokenizer, slots=1, max_len=writers.max_len, reuse=False)
    ways = {
        "one": lambda task, name: one_at_a_time(model, tokenizer, task, alone, sampling),
        "batched": lambda task, name: evaluate(
            model, tokenizer, {name: task}, sampling=sampling, writers=writers
        ).tasks[name].correct,
    }  # fmt: skip
    run = lambda way, name: timed(lambda: ways[way](tasks[name], name))
    first = {way: round(sum(run(way, name)[0] for name in tasks), 1) for way in ways}
    rounds = []
    for _ in range(args.rounds):
        seconds = {}
        for name in tasks:
            one, both = (run(way, name) for way in ways)
            assert one[1] == both[1], f"the two ways answer {name} differently"
            seconds[name] = one[0], both[0]
        rounds.append(seconds)
        told = (f"{name} {a / b:.2f}" for name, (a, b) in seconds.items())
        print(f"one at a time / batched: {', '.join(told)}; all {ratio(seconds):.2f}")
    median = lambda of: {name: round(statistics.median(map(of(name), rounds)), 2) for name in tasks}
    return {
        "problems": {name: len(task) for name, task in tasks.items()},
        "not_here": sorted(skipped),
        "one_per_s": median(lambda name: lambda r: len(tasks[name]) / r[name][0]),
        "batched_per_s": median(lambda name: lambda r: len(tasks[name]) / r[name][1]),
        "ratio_of": median(lambda name: lambda r: r[name][0] / r[name][1]),
        "median_ratio": round(statistics.median(map(ratio, rounds)), 2),
        "first_run_s": first,
    }


def ratio(seconds: dict[str, tuple[float, float]]) -> float:
    return sum(one for one, _ in seconds.values()) / sum(both for _, both in seconds.values())


def one_at_a_time(model, tokenizer, task, engine, sampling) -> int:
    """Right answers, with one forward pass or one row of an engine a problem."""
    if task.kind == "categorical":
        answers = letters(model, tokenizer, task)
    else:
        answers = texts_of(engine, tokenizer, task, sampling)
    return sum(task.score(task[i], answer) > 0 for i, answer in enumerate(answers))


def letters(model, tokenizer, task):
    """The likeliest letter of each problem."""
    import numpy as np

    from nanochat_jax.evals.categorical import question

    for i in range(len(task)):
        asked = question(tokenizer, i, task[i])
        ids_BT = np.zeros((1, -(-len(asked.prompt) // 128) * 128), np.int32)
        ids_BT[0, : len(asked.prompt)] = asked.prompt
        logits = np.asarray(model(ids_BT)[0, len(asked.prompt) - 1])[list(asked.options)]
        yield task[i]["letters"][int(logits.argmax())]


def texts_of(engine, tokenizer, task, sampling):
    """The written answer to each problem."""
    for i in range(len(task)):
        prompt = tokenizer.render_for_completion(task[i])
        (done,) = engine.complete([prompt], sampling.max_new_tokens)
        yield tokenizer.decode(done.tokens)


def made_up(folder: pathlib.Path, rows: int) -> pathlib.Path:
    """Task files of random words, with the lengths of the real ones."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=2 + i % 7)) for i in range(WORDS)]
    say = lambda n: " ".join(rng.choices(words, k=max(1, round(n * rng.uniform(0.6, 1.4)))))

    def write(path: str, row) -> None:
        file = folder / f"{path}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row()) + "\n" for _ in range(rows)))

    several = lambda n: [say(n) for _ in range(4)]
    choices = lambda: {"text": several(ARC[1]), "label": list("ABCD")}
    science = lambda: {"question": say(ARC[0]), "choices": choices(), "answerKey": "B"}
    for name in ("ARC-Easy", "ARC-Challenge"):
        write(f"arc/{name}/test", science)
    write("mmlu/test", lambda: {
        "question": say(MMLU[0]), "subject": "words", "choices": several(MMLU[1]), "answer": 2,
    })  # fmt: skip
    write("gsm8k/test", lambda: {"question": say(SUM[0]), "answer": say(SUM[1]) + "\n#### 7"})
    (folder / "words_alpha.txt").write_text("\n".join(words))
    return folder


if __name__ == "__main__":
    main()
