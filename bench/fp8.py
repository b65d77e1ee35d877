"""What 8-bit products (`--fp8`) do to the loss: a model trained from one seed in three precisions.

`python bench/fp8.py SHARDS [--steps 300] [--seeds 3] ...` trains on a folder of parquet files with
a column `text` (the last file is held out), with the recipe of 2026: in float32, in bfloat16, and
in bfloat16 with `--fp8`. Each seed has its own initial weights and order of rows, the same in all
three. On a CPU bfloat16 and 8 bits are emulated: the losses count, not the time. Prints nats a
token of every run, over its last 50 steps and, scored in float32, on held-out rows; the last line
is one JSON object with the differences beside the spread between seeds.
"""

import argparse
import itertools
import json
import pathlib
import statistics
from collections.abc import Iterable

KINDS = {
    "float32": dict(dtype="float32"),
    "bfloat16": dict(dtype="bfloat16"),
    "fp8": dict(dtype="bfloat16", fp8=True),
}
# As in `configs/cpu.toml`: the recipe's own rates are for batches of half a million tokens.
SMALL = dict(
    recipe="current", scale_to_batch=False, embedding_lr=0.15, matrix_lr=0.04,
    unembedding_lr=0.004, scalar_lr=0.1, smear_lr=0.05, weight_decay=0.0, window_pattern="SSSL",
)  # fmt: skip
HELD_OUT = 256  # rows
LAST = 50  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=pathlib.Path, help="folder of parquet files")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rows", type=int, default=4, help="rows of a step")
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--vocab-size", type=int, default=2048)
    args = parser.parse_args()
    from nanochat_jax.devices import prepare

    prepare("cpu")
    train, held_out = data(args)
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        train_one = runner(args, KINDS[kind], train, held_out)
        for seed in range(args.seeds):
            runs[kind].append(train_one(seed))
            print(f"{kind:9} seed {seed}: {runs[kind][-1]}", flush=True)
    settings = {k: v for k, v in vars(args).items() if k != "shards"}
    print(json.dumps(settings | {"runs": runs} | {n: verdict(runs, n) for n in ("last", "held")}))


def verdict(runs: dict[str, list[dict[str, float]]], name: str) -> dict[str, dict[str, float]]:
    """Of one figure and each kind: its mean, what it is above float32's, the spread of both."""
    plain, out = [run[name] for run in runs["float32"]], {}
    for kind, of in runs.items():
        values = [run[name] for run in of]
        above = [a - b for a, b in zip(values, plain, strict=True)]
        found = dict(mean=statistics.mean(values), above_float32=statistics.mean(above))
        if len(of) > 1:
            found |= dict(sd_of_seeds=statistics.stdev(values), sd_of_above=statistics.stdev(above))
        out[kind] = {k: round(v, 5) for k, v in found.items()}
    return out


def data(args: argparse.Namespace):
    """(rows to train on, held-out rows), `[n, length + 1]` ids: documents after documents."""
    from nanochat_jax.data import shards
    from nanochat_jax.tokenizer import Tokenizer

    files = shards.list_shards(args.shards)
    if len(files) < 2:
        raise SystemExit(f"{args.shards} has {len(files)} parquet files; expected two or more")
    texts = lambda some: itertools.chain.from_iterable(shards.iter_documents(some))
    tokenizer = Tokenizer.train(itertools.islice(texts(files[:-1]), 2000), args.vocab_size)
    encode = lambda text: tokenizer.encode(text, prepend=tokenizer.get_bos_token_id())
    wanted = (args.steps * args.rows, files[:-1]), (HELD_OUT, files[-1:])
    return [cut(map(encode, texts(some)), n, args.length + 1) for n, some in wanted]


def cut(documents: Iterable[list[int]], rows: int, length: int):
    """The first `rows` rows of the stream of documents."""
    import numpy as np

    stream = itertools.chain.from_iterable(documents)
    ids = np.fromiter(itertools.islice(stream, rows * length), np.int32)
    if len(ids) < rows * length:
        raise SystemExit(f"{len(ids)} tokens of text, {rows * length} wanted: lower --steps")
    return ids.reshape(rows, length)


def runner(args: argparse.Namespace, precision: dict, train, held_out):
    """`seed -> losses` of a run in that precision; compiled once for all seeds."""
    import jax
    import numpy as np

    from nanochat_jax import sharding
    from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults, shape_of_depth
    from nanochat_jax.config.stages import BaseTrain, recipes_of
    from nanochat_jax.config.values import build
    from nanochat_jax.models.gpt import GPT, init_params
    from nanochat_jax.models.loss import weighted_loss
    from nanochat_jax.train import setup
    from nanochat_jax.train.curriculum import StepRows

    shape = shape_of_depth(args.depth, args.width // args.depth, 128)
    text = dict(sequence_len=args.length, vocab_size=args.vocab_size, window_pattern="SSSL")
    cfg = GPTConfig(**recipe_model_defaults("current") | shape | text)
    batch = dict(
        depth=args.depth, device_batch_size=args.rows, max_seq_len=args.length,
        total_batch_size=args.rows * args.length, num_iterations=args.steps,
    )  # fmt: skip
    config = build(BaseTrain, recipes_of("base")["current"] | SMALL | batch | precision)
    trainer = setup.trainer(config, cfg, sharding.make_mesh("1"), steps=args.steps)
    score = jax.jit(lambda params, x, y, w: weighted_loss(GPT(cfg), params, x, y, w))

    def run(seed: int) -> dict[str, float]:
        state = trainer.fresh_state(init_params(cfg, jax.random.key(seed)))
        rows = np.random.default_rng(seed).permutation(train).reshape(args.steps, 1, args.rows, -1)
        losses = []
        for i, ids in enumerate(rows):
            inputs, targets = ids[..., :-1], ids[..., 1:]
            step = StepRows(inputs, targets, inputs.size, progress=i / args.steps)
            state, metrics = trainer.step(state, trainer.place(step))
            losses.append(metrics["train/loss"])
        inputs, targets = held_out[:, :-1], held_out[:, 1:]
        mean = np.full(inputs.shape, 1 / inputs.size, np.float32)
        held = score(state.params, inputs, targets, mean)
        last = statistics.mean(map(float, losses[-LAST:]))
        return {"last": round(last, 5), "held": round(float(held), 5)}

    return run


if __name__ == "__main__":
    main()
