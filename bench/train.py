"""A whole training step on this CPU, beside the original's and beside what is possible.

    python bench/train.py [--recipe R] [--case d4|wide] [--peer CLONE --peer-python PY]

`R` is `classic` or `current`; `CLONE` a checkout of karpathy/nanochat, of October 2025 for the one
and of July 2026 for the other; `PY` an interpreter with torch. A step is forward, backward, clip
where the recipe clips, Muon and AdamW, over the same rows in float32. Each side runs as its users
run it: ours as one device with XLA's threads and as one device a core, theirs as its
`scripts/base_train.py` drives it, eager and through `torch.compile`. Of either the faster is
compared, and named. Every way has a process of its own; they are asked in turn, and medians of the
rounds are given.

What is possible: the multiplications that a step cannot do without (attention's unseen half is not
counted) at the speed of large float32 products here, by the faster of XLA and numpy.
The last line is one JSON object, `{"cases": [{"name", "ratio", ...}]}`; the ratio is our tokens a
second over theirs.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ways import Way, serve

ROOT = Path(__file__).resolve().parents[1]
OURS = {"ours: one device": 1, "ours: one device a core": 0}
THEIRS = {"original: eager": False, "original: compiled": True}
PRODUCTS = "products"


class Case(NamedTuple):
    """A model and a step's rows."""

    depth: int
    width: int
    vocab: int
    length: int
    rows: int

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """(inputs, targets) `[rows, length]`, drawn from all ids."""
        shape = self.rows, self.length + 1
        ids = np.random.default_rng(0).integers(0, self.vocab, shape)
        return ids[:, :-1].astype(np.int32), ids[:, 1:].astype(np.int32)


CASES = {"d4": Case(4, 256, 4096, 512, 4), "wide": Case(2, 768, 4096, 1024, 4)}
HEAD = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, help="checkout of the original; none: ours alone")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--recipe", choices=("classic", "current"), default="classic")
    parser.add_argument("--case", choices=CASES, help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of steps of a way in a round")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        return serve(way(args))
    cases = [measure(name, args) for name in ([args.case] if args.case else CASES)]
    print(json.dumps({"recipe": args.recipe, "cases": cases}))
    return None


def way(args: argparse.Namespace) -> Callable[[], Any]:
    """What one process does when it is asked: seconds a step, or operations a second."""
    case = CASES[args.case]
    if args.way == PRODUCTS:
        return product_speed()
    if args.way in OURS:
        step = our_step(case, args.recipe, OURS[args.way])
    else:
        step = their_step(case, args.recipe, args.peer, THEIRS[args.way])
    return lambda: median_seconds(step, args.seconds)


def median_seconds(step: Callable[[], Any], seconds: float) -> float:
    """Of steps one after the other, as many as begin within `seconds`."""
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The row of one case; prints it in words."""
    case, flops = CASES[name], step_flops(CASES[name], args.recipe)
    rounds = list(in_turn(name, args))
    of = lambda way: statistics.median(one[way] for one in rounds)
    step_s = {way: of(way) for way in rounds[0] if way != PRODUCTS}
    ours = min((w for w in step_s if w in OURS), key=step_s.get)
    floor_s = flops / of(PRODUCTS)
    row = {
        "name": name, "ours": ours, "tokens_per_s": round(case.tokens / step_s[ours]),
        "step_s": {way: round(s, 3) for way, s in step_s.items()}, "step_gflop": flops / 1e9,
        "products_gflop_per_s": round(of(PRODUCTS) / 1e9),
        "share_of_floor": round(floor_s / step_s[ours], 3),
    }  # fmt: skip
    for way, seconds in step_s.items():
        print(f"{name:5} {way:24} {seconds:7.3f} s   {case.tokens / seconds:9,.0f} tokens/s")
    print(
        f"{name:5} {'products alone':24} {floor_s:7.3f} s   ours: {row['share_of_floor']:.0%} of it"
    )
    if theirs := [w for w in step_s if w in THEIRS]:
        row["peer"] = min(theirs, key=step_s.get)
        row["ratios"] = [
            round(min(r[w] for w in theirs) / min(r[w] for w in OURS), 3) for r in rounds
        ]
        row["ratio"] = round(step_s[row["peer"]] / step_s[ours], 3)
        print(f"{name:5} ratio {row['ratio']:.2f}, rounds {row['ratios']}")
    return row


def in_turn(name: str, args: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Way -> what it found, round by round, without the first, in which they compile."""
    argv = [f"--recipe={args.recipe}", f"--case={name}", f"--seconds={args.seconds}"]
    sys.path.insert(0, str(ROOT))
    from nanochat_jax.devices import cpu_environment

    ways = [Way(__file__, PRODUCTS, argv)]
    ways += [Way(__file__, way, argv, env=cpu_environment()) for way in OURS]
    if args.peer:
        argv.append(f"--peer={args.peer.resolve()}")
        ways += [Way(__file__, way, argv, python=args.peer_python) for way in THEIRS]
    try:
        first = {way: way.ask() for way in ways}
        assert first
        for _ in range(args.rounds):
            yield {way.name: way.ask().found for way in ways}
    finally:
        for way in ways:
            way.end()


def product_speed() -> Callable[[], float]:
    """Operations a second of large float32 products on all cores: the best of some."""
    import jax

    n = 1536
    a = np.random.default_rng(0).standard_normal((n, n), np.float32)
    on_device, dot = jax.device_put(a), jax.jit(lambda a: a @ a)
    ways = lambda: a @ a, lambda: jax.block_until_ready(dot(on_device))

    def best() -> float:
        return 2 * n**3 / min(median_seconds(way, 0.0) for _ in range(10) for way in ways)

    return best


def our_config(case: Case, recipe: str, devices: int) -> tuple[Any, Any]:
    """(config of base training, config of the model) as the program's flags make them."""
    sys.path.insert(0, str(ROOT))
    from nanochat_jax.config.resolve import resolve
    from nanochat_jax.train.base import model_config

    flags = {
        "recipe": recipe, "depth": case.depth, "aspect-ratio": case.width // case.depth,
        "head-dim": HEAD, "max-seq-len": case.length, "total-batch-size": case.tokens,
        "device-batch-size": case.rows // devices, "num-iterations": 10_000,
    }  # fmt: skip
    config = resolve("base", [f"--{name}={value}" for name, value in flags.items()])
    return config, model_config(config, case.vocab)


def our_step(case: Case, recipe: str, devices: int) -> Callable[[], Any]:
    """One step of ours on that many devices; 0: as many as there are cores."""
    sys.path.insert(0, str(ROOT))
    from nanochat_jax.devices import prepare, virtual_devices

    devices = devices or virtual_devices(case.rows, 1)
    prepare("cpu", virtual=devices)
    import jax

    from nanochat_jax import sharding
    from nanochat_jax.models.gpt import init_params
    from nanochat_jax.train import setup
    from nanochat_jax.train.curriculum import StepRows

    config, cfg = our_config(case, recipe, devices)
    mesh = sharding.make_mesh()
    config = setup.for_this_machine(config, cfg, mesh, steps=config.num_iterations)
    trainer = setup.trainer(config, cfg, mesh, steps=config.num_iterations)
    state = trainer.fresh_state(init_params(cfg, jax.random.key(0)))
    inputs, targets = case.batch()
    batch = trainer.place(StepRows(inputs[None], targets[None], tokens=case.tokens))

    def step() -> None:
        nonlocal state
        state, metrics = trainer.step(state, batch)
        jax.block_until_ready(metrics)

    return step


def their_step(case: Case, recipe: str, clone: Path, compiled: bool) -> Callable[[], Any]:
    """One step of the original, as its `scripts/base_train.py` of that time drives it."""
    sys.path.insert(0, str(clone))
    import torch
    from nanochat.gpt import GPT, GPTConfig

    shape = dict(n_layer=case.depth, n_embd=case.width, n_head=case.width // HEAD)
    shape |= dict(n_kv_head=case.width // HEAD, vocab_size=case.vocab, sequence_len=case.length)
    with torch.device("meta"):
        model = GPT(GPTConfig(**shape))
    model.to_empty(device="cpu")
    model.init_weights()
    run = torch.compile(model, dynamic=False) if compiled else model
    classic = recipe == "classic"
    with contextlib.redirect_stdout(sys.stderr):  # where a way answers, the original prints
        setup = model.setup_optimizers if classic else model.setup_optimizer
        optimizers = setup() if classic else [setup(weight_decay=0.28)]
    x, y = (torch.from_numpy(a).long() for a in case.batch())

    def step() -> float:
        loss = run(x, y)
        loss.backward()
        if classic:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        return loss.item()

    return step


def step_flops(case: Case, recipe: str) -> float:
    """Multiplications and additions that a step's products cannot do without.

    Three times the forward pass: of every matrix, and of each pair of positions that attention
    lets see each other. And each of Muon's iterations: X X^T, its square, and their product with X.
    """
    from nanochat_jax.config.gpt import matmul_params

    config, cfg = our_config(case, recipe, devices=1)
    D, T = case.width, case.length
    pairs = sum(sum(min(t, w) + 1 for t in range(T)) for w in cfg.windows)
    forward = 2 * matmul_params(cfg) * case.tokens + 4 * D * pairs * case.rows
    iteration = lambda S, L: 4 * S * S * L + 2 * S**3
    layer = 4 * iteration(D, D) + 2 * iteration(D, 4 * D)
    return 3 * forward + config.optim.muon_steps * case.depth * layer


if __name__ == "__main__":
    main()
