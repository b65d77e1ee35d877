"""CORE in full batches with shared beginnings, against one question a forward pass.

`python bench/core.py [--bundle DIR] [--max-per-task 16] [--depth 4] [--rounds 3]` answers the same
questions with the same random model both ways, in turn, and prints seconds and ratios round by
round; the last line is one JSON object, with questions a second. One question a forward pass is as
the original does it (all its options side by side, logits of every position), compiled, with
lengths padded to a multiple of 128, on one device with all its threads. Batches go over all devices
(of a CPU, one a core). Compilation is left out of both (each way runs once before), tokenizing is
in both.
Without a bundle the questions are made up, of the kinds, shots and lengths that CORE has.
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

from ways import WAY, in_turn, serve

# Of the 22 tasks: label -> (kind, solved examples, words before, words of an option, options).
TASKS = {
    "hellaswag_zeroshot": ("multiple_choice", 0, 30, 18, 4),
    "jeopardy": ("language_modeling", 10, 18, 2, 1),
    "bigbench_qa_wikidata": ("language_modeling", 10, 7, 2, 1),
    "arc_easy": ("multiple_choice", 10, 20, 4, 4),
    "arc_challenge": ("multiple_choice", 10, 22, 5, 4),
    "copa": ("multiple_choice", 0, 8, 6, 2),
    "commonsense_qa": ("multiple_choice", 10, 30, 1, 5),
    "piqa": ("multiple_choice", 10, 9, 18, 2),
    "openbook_qa": ("multiple_choice", 0, 11, 3, 4),
    "lambada_openai": ("language_modeling", 0, 70, 1, 1),
    "hellaswag": ("multiple_choice", 10, 30, 18, 4),
    "winograd": ("schema", 0, 10, 6, 2),
    "winogrande": ("schema", 0, 11, 7, 2),
    "bigbench_dyck_languages": ("language_modeling", 10, 50, 2, 1),
    "agi_eval_lsat_ar": ("multiple_choice", 3, 150, 1, 5),
    "bigbench_cs_algorithms": ("language_modeling", 10, 40, 1, 1),
    "bigbench_operators": ("language_modeling", 10, 30, 2, 1),
    "bigbench_repeat_copy_logic": ("language_modeling", 10, 25, 8, 1),
    "squad": ("language_modeling", 10, 130, 3, 1),
    "coqa": ("language_modeling", 0, 250, 2, 1),
    "boolq": ("multiple_choice", 10, 110, 1, 2),
    "bigbench_language_identification": ("multiple_choice", 10, 70, 1, 11),
}
WORDS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=pathlib.Path)
    parser.add_argument("--max-per-task", type=int, default=16)
    add_model_flags(parser)
    args = parser.parse_args()
    if args.way:
        logging.disable(logging.WARNING)
        serve({"one": one_at_a_time, "batched": batched}[args.way](args))
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = args.bundle or made_up(pathlib.Path(folder) / "bundle", args.max_per_task)
        argv = [*sys.argv[1:], "--bundle", str(bundle)]
        first, *rounds = printed(in_turn(__file__, ("one", "batched"), argv, args.rounds))
    questions = sum(n for _, n in first["one"].found.values())
    per_s = [[round(questions / r[way].wall_s, 2) for way in ("one", "batched")] for r in rounds]
    cpu = [r["one"].cpu_s / r["batched"].cpu_s for r in rounds]
    print(json.dumps({
        "questions": questions, "tasks": len(first["one"].found), "rounds": per_s,
        "median_ratio": round(statistics.median(b / a for a, b in per_s), 2),
        "median_cpu_ratio": round(statistics.median(cpu), 2),
        "first_run_s": {way: round(done.wall_s, 1) for way, done in first.items()},
    }))  # fmt: skip


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """What the benches of evaluations share."""
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--recipe", default="classic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", type=int, default=0, help="for batches; 0: all")
    parser.add_argument(WAY, default="")


def printed(rounds):
    """The rounds, each printed; both ways must have given the same answers."""
    for n, r in enumerate(rounds):
        one, batched = r["one"], r["batched"]
        assert one.found == batched.found, "the two ways answer differently"
        note = "" if n else " (compiles, not counted)"
        print(
            f"one at a time {one.wall_s:.2f} s, batched {batched.wall_s:.2f} s: "
            f"{one.wall_s / batched.wall_s:.2f}x, of processor time "
            f"{one.cpu_s / batched.cpu_s:.2f}x{note}", flush=True,
        )  # fmt: skip
        yield r


def batched(args: argparse.Namespace):
    """Task -> (right answers, questions) of the evaluation as it is, on all devices."""
    mesh = mesh_of(args)
    from nanochat_jax.evals import core

    model, tokenizer = setting(args)
    most = args.max_per_task
    ask = lambda: core.evaluate(model, tokenizer, args.bundle, max_per_task=most, mesh=mesh).tasks
    return lambda: {label: [task.correct, task.n] for label, task in ask().items()}


def mesh_of(args: argparse.Namespace):
    """The mesh of all devices, or of so many."""
    from nanochat_jax import sharding
    from nanochat_jax.devices import cpu_count, prepare

    prepare("", virtual=args.devices or cpu_count())
    return sharding.make_mesh(str(args.devices or ""))


def setting(args: argparse.Namespace):
    """The random model, and a tokenizer of the bundle's own words."""
    from nanochat_jax.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(texts(args.bundle), args.vocab)
    return random_model(args, tokenizer), tokenizer


def random_model(args: argparse.Namespace, tokenizer):
    """A random model of `--depth`, of the demo's proportions."""
    import jax

    from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults, shape_of_depth
    from nanochat_jax.devices import compute_dtype
    from nanochat_jax.models.gpt import Model, init_params

    # The demo's width on small models, the original's from depth 12 on.
    shape = shape_of_depth(args.depth, 32 if args.depth < 12 else 64, 128)
    given = dict(sequence_len=2048, vocab_size=tokenizer.get_vocab_size())
    cfg = GPTConfig(**recipe_model_defaults(args.recipe) | shape | given)
    params = init_params(cfg, jax.random.key(0))
    # What starts at zero would leave a model without opinions.
    noise = lambda p: p + 0.02 * jax.random.normal(jax.random.key(p.size), p.shape, p.dtype)
    return Model.create(cfg, jax.tree.map(noise, params), compute_dtype())


def texts(bundle: pathlib.Path):
    """The lines of the bundle's files."""
    from nanochat_jax.evals.core.bundle import read, rows

    for task in read(bundle):
        try:
            some = rows(task, 200)
        except FileNotFoundError:
            continue
        yield from (json.dumps(row, ensure_ascii=False) for row in some)


def one_at_a_time(args: argparse.Namespace):
    """Task -> (right answers, questions), with one forward pass a question."""
    from nanochat_jax.devices import prepare

    prepare("")
    from nanochat_jax.evals.core.bundle import file_of, read, rows

    model, tokenizer = setting(args)
    right = partial(_right, model, tokenizer)
    questions = lambda: ((t, rows(t, args.max_per_task)) for t in read(args.bundle) if file_of(t))
    return lambda: {task.label: [right(task, items), len(items)] for task, items in questions()}


def _right(model, tokenizer, task, items) -> int:
    from nanochat_jax.evals.core import prompts, result

    count = 0
    for i in range(len(items)):
        (example,) = prompts.examples(task, items, [i], tokenizer, 10**9)
        count += result.grade(task, example, scores(model, example))["correct"]
    return count


def scores(model, example):
    """The scores of a question's rows."""
    import numpy as np

    from nanochat_jax.evals.core.scoring import RowScore

    longest = max(len(row.ids) for row in example.rows)
    ids_BT = np.zeros((len(example.rows), -(-longest // 128) * 128), np.int32)
    for ids, row in zip(ids_BT, example.rows, strict=True):
        ids[: len(row.ids)] = row.ids
    nll_BT, best_BT = map(np.asarray, every_position()(model.gpt, model.params, ids_BT))
    return [
        RowScore(nll[row.start - 1 : row.end - 1], best[row.start - 1 : row.end - 1])
        for nll, best, row in zip(nll_BT, best_BT, example.rows, strict=True)
    ]


def every_position(made=[]):  # noqa: B006
    """The compiled forward pass: nats of each next token, and the token expected there."""
    if not made:
        import jax
        import jax.numpy as jnp

        from nanochat_jax.models.loss import token_nll

        def forward(gpt, params, ids_BT):
            logits_BTV, _ = gpt.apply({"params": params}, ids_BT)
            nll_BT = token_nll(logits_BTV[:, :-1], ids_BT[:, 1:])
            return nll_BT, jnp.argmax(logits_BTV, axis=-1)

        made.append(jax.jit(forward, static_argnums=0))
    return made[0]


def made_up(folder: pathlib.Path, rows: int) -> pathlib.Path:
    """A bundle of random words, with the kinds, shots and lengths of the real tasks."""
    rng = random.Random(0)
    (folder / "eval_data").mkdir(parents=True)
    say = speaker(random_words(rng), rng)
    entries, table = ["icl_tasks:"], ["Eval Task,Random baseline"]
    for label, (kind, shots, before, option, options) in TASKS.items():
        entries += ["-", f"  label: {label}", f"  icl_task_type: {kind}"]
        entries += [f"  dataset_uri: {label}.jsonl", f"  num_fewshot: [{shots}]"]
        table.append(f"{label},{100 / options if options > 1 else 0}")
        lines = [json.dumps(row(kind, say, before, option, options)) for _ in range(rows)]
        (folder / "eval_data" / f"{label}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "core.yaml").write_text("\n".join(entries) + "\n")
    (folder / "eval_meta_data.csv").write_text("\n".join(table) + "\n")
    return folder


def random_words(rng: random.Random) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(rng.choices(letters, k=2 + i % 7)) for i in range(WORDS)]


def speaker(words: list[str], rng: random.Random):
    """What gives a text of about so many of the words."""
    return lambda n: " ".join(rng.choices(words, k=max(1, round(n * rng.uniform(0.6, 1.4)))))


def row(kind: str, say, before: int, option: int, options: int) -> dict:
    if kind == "language_modeling":
        return {"context": say(before), "continuation": say(option)}
    several = lambda n: [say(n) for _ in range(options)]
    if kind == "schema":
        return {"context_options": several(before), "continuation": say(option), "gold": 0}
    return {"query": say(before), "choices": several(option), "gold": options - 1}


if __name__ == "__main__":
    main()
