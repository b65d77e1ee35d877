"""ChatCORE in full batches, against one problem at a time.

`python bench/chatcore.py [--task-data DIR] [--max-problems 32] [--max-new-tokens 128] [--depth 4]
[--rounds 3]` answers the same problems with the same random model both ways, in turn, and prints
one JSON object: problems a second, medians of the rounds, and their ratios. One at a time is as the
original does it, but compiled: a prompt a forward pass with the logits of every position, padded to
a multiple of 128; a problem an engine of one row, with its tool and its cache; on one device with
all its threads. Batches go over all devices (of a CPU, one a core). Compilation is left out of both
(each way runs once before), tokenizing and grading are in both. A random model never ends an
answer, so all are of the full length; programs are run in the sandbox in both.
Without a folder of task files the problems are made up, of the kinds and lengths that ChatCORE has.
"""

import argparse
import json
import logging
import pathlib
import random
import statistics
import sys
import tempfile
from functools import partial

from core import add_model_flags, mesh_of, random_model, random_words, speaker
from ways import in_turn, serve, timed

# Words of a question, of each of its choices; of worked answers.
ARC, MMLU, SUM = (21, 5), (45, 8), (45, 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task-data", type=pathlib.Path)
    parser.add_argument("--max-problems", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    add_model_flags(parser)
    args = parser.parse_args()
    if args.way:
        logging.disable(logging.WARNING)
        serve({"one": one_at_a_time, "batched": batched}[args.way](args))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = args.task_data or made_up(pathlib.Path(folder), args.max_problems)
        argv = [*sys.argv[1:], "--task-data", str(data)]
        first, *rounds = in_turn(__file__, ("one", "batched"), argv, args.rounds)
    print(json.dumps(figures(first, rounds)))


def figures(first: dict, rounds: list[dict]) -> dict:
    """Of each task and of all: problems a second both ways, and their ratio; medians of rounds."""
    ways, names = ("one", "batched"), list(first["one"].found)
    for r in (first, *rounds):
        right = [{name: r[way].found[name][0] for name in names} for way in ways]
        assert right[0] == right[1], "the two ways answer differently"
    n = {name: first["one"].found[name][0][1] for name in names}
    median = lambda of: round(statistics.median(map(of, rounds)), 2)
    # Of a task: [right answers, problems], wall clock, processor seconds.
    ratio = lambda names, k: median(
        lambda r: (
            sum(r["one"].found[name][k] for name in names)
            / sum(r["batched"].found[name][k] for name in names)
        )
    )
    per_s = lambda name, way: median(lambda r: n[name] / r[way].found[name][1])
    return {
        "problems": n,
        "per_s": {name: [per_s(name, way) for way in ways] for name in names},
        "ratio_of": {name: ratio([name], 1) for name in names},
        "cpu_ratio_of": {name: ratio([name], 2) for name in names},
        "median_ratio": ratio(names, 1), "median_cpu_ratio": ratio(names, 2),
        "first_run_s": {way: round(first[way].wall_s, 1) for way in ways},
    }  # fmt: skip


def setting(args: argparse.Namespace):
    """(the random model, a tokenizer of the problems' own words, the tasks)."""
    from nanochat_jax.evals.chatcore import catalog
    from nanochat_jax.tokenizer import Tokenizer

    tasks, _ = catalog.at_hand(args.task_data, str(args.task_data))
    tasks = {name: task.view(stop=args.max_problems) for name, task in tasks.items()}
    rows = (task[i] for task in tasks.values() for i in range(len(task)))
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    tokenizer = Tokenizer.train(texts, args.vocab)
    return random_model(args, tokenizer), tokenizer, tasks


def batched(args: argparse.Namespace):
    """Task -> [right answers, problems] and times of the evaluation as it is, on all devices."""
    mesh = mesh_of(args)
    from nanochat_jax.evals.chatcore import SamplingParams, engines, evaluate

    model, tokenizer, tasks = setting(args)
    sampling = SamplingParams(max_new_tokens=args.max_new_tokens)
    written = [task for task in tasks.values() if task.kind == "generative"]
    pool = engines(model, tokenizer, written, sampling, mesh=mesh)
    settings = dict(sampling=sampling, mesh=mesh, pool=pool)

    def one_task(name: str) -> list[int]:
        done = evaluate(model, tokenizer, {name: tasks[name]}, **settings).tasks[name]
        return [done.correct, done.n]

    return lambda: {name: timed(partial(one_task, name)) for name in tasks}


def one_at_a_time(args: argparse.Namespace):
    """The same, with one forward pass or one row of an engine a problem."""
    from nanochat_jax.devices import prepare

    prepare("")
    from nanochat_jax.serve.engine import Engine

    model, tokenizer, tasks = setting(args)
    longest = max(
        len(tokenizer.render_for_completion(task[i]))
        for task in tasks.values()
        for i in range(len(task))
    )
    room = longest + args.max_new_tokens
    engine = Engine(model, tokenizer, slots=1, max_len=room, reuse=False)

    def one_task(task) -> list[int]:
        if task.kind == "categorical":
            answers = letters(model, tokenizer, task)
        else:
            answers = texts_of(engine, tokenizer, task, args.max_new_tokens)
        right = sum(task.score(task[i], answer) > 0 for i, answer in enumerate(answers))
        return [right, len(task)]

    return lambda: {name: timed(partial(one_task, task)) for name, task in tasks.items()}


def letters(model, tokenizer, task):
    """The likeliest letter of each problem."""
    import numpy as np

    from nanochat_jax.evals.categorical import letter_prompt

    for i in range(len(task)):
        _, prompt, options = letter_prompt(tokenizer, i, task[i])
        ids_BT = np.zeros((1, -(-len(prompt) // 128) * 128), np.int32)
        ids_BT[0, : len(prompt)] = prompt
        logits = np.asarray(model(ids_BT)[0, len(prompt) - 1])[list(options)]
        yield task[i]["letters"][int(logits.argmax())]


def texts_of(engine, tokenizer, task, most: int):
    """The written answer to each problem."""
    for i in range(len(task)):
        prompt = tokenizer.render_for_completion(task[i])
        (done,) = engine.complete([prompt], most)
        yield tokenizer.decode(done.tokens)


def made_up(folder: pathlib.Path, rows: int) -> pathlib.Path:
    """Task files of random words, with the lengths of the real ones."""
    rng = random.Random(0)
    words = random_words(rng)
    say = speaker(words, rng)

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
