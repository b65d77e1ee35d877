"""Tokens a second of the decoding core alone, beside the floor that memory bandwidth sets.

`python bench/decode.py [--depth 20] [--batch 1 64] [--context 1024] [--dtype bfloat16]` decodes
with random weights: a tiny model on a CPU, d20 in bfloat16 on an accelerator. A step has to read
every matrix once and each row's cache; those bytes over the bandwidth are the floor of its time.
The bandwidth is measured by a copy on the same device, and where the device's name is known its
published peak stands beside it; what fits into a CPU's own caches can be faster than that floor.
Sampling is in the loop, as in the server. Ends with one line of JSON. Needs JAX, Flax
and the compiled tokenizer (`nanochat_jax/_rustbpe*.so`).

`--peer CLONE --peer-python PY` compares with the original's engine instead: `decode_peer.py`.
"""

import argparse
import json
import math
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from nanochat_jax.config.gpt import (  # noqa: E402
    GPTConfig,
    kv_bytes_read,
    recipe_model_defaults,
    shape_of_depth,
)
from nanochat_jax.models.cache import init_cache  # noqa: E402
from nanochat_jax.models.gpt import GPT, Model, init_params  # noqa: E402
from nanochat_jax.serve.engine import decode  # noqa: E402
from nanochat_jax.serve.engine.kernels import choose_sample  # noqa: E402
from nanochat_jax.serve.engine.pool import loop_options  # noqa: E402
from nanochat_jax.serve.engine.rows import idle_rows  # noqa: E402
from nanochat_jax.serve.engine.weights import prepare  # noqa: E402
from nanochat_jax.train.peaks import peaks  # noqa: E402

EMBEDDINGS = ("wte", "value_embeds")  # a step reads a line of these a row, not the table


def main() -> None:
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=4 if on_cpu else 20)
    parser.add_argument("--aspect-ratio", type=int, default=32 if on_cpu else 64)
    parser.add_argument("--vocab", type=int, default=1152 if on_cpu else 65536)
    parser.add_argument("--recipe", default="classic")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--context", type=int, default=128 if on_cpu else 1024)
    parser.add_argument("--dtype", default="float32" if on_cpu else "bfloat16")
    parser.add_argument("--int8", action="store_true", help="matrices in 8 bits")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--steps", type=int, default=8, help="tokens a row per dispatch")
    parser.add_argument("--dispatches", type=int, default=24)
    parser.add_argument("--peer", type=Path, help="checkout of the original, to be compared with")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--rounds", type=int, default=5, help="with --peer: of both in turn")
    args = parser.parse_args()
    if args.peer:
        from decode_peer import compare

        settings = args.rounds, args.temperature, args.top_k
        return print(json.dumps(compare(args.peer, args.peer_python, *settings)))
    cfg = config(args)
    copied, published = copy_bandwidth(2**26 if on_cpu else 2**31), peaks(device_name())[1]
    gpt = GPT(cfg, dtype=jnp.dtype(args.dtype), param_dtype=jnp.dtype(args.dtype))
    model = prepare(Model(gpt, random_params(gpt)), int8=args.int8)
    types = f"{args.dtype}, matrices in int8" if args.int8 else args.dtype
    known = {"published_gb_per_s": published / 1e9} if math.isfinite(published) else {}
    print(f"{device_name()}: copies {copied / 1e9:.1f} GB/s {known}, d{args.depth} {types}")
    rows = [measure(model, batch, args, copied, published) for batch in args.batch]
    head = {"device": device_name(), "copy_gb_per_s": copied / 1e9, **known}
    run = {name: value for name, value in vars(args).items() if "peer" not in name}
    print(json.dumps({**head, **run, "weight_bytes": weight_bytes(model.params), "rows": rows}))


def config(args: argparse.Namespace) -> GPTConfig:
    """A shape with room for the context and one dispatch."""
    longest = args.context + args.steps
    shape = shape_of_depth(args.depth, args.aspect_ratio)
    more = recipe_model_defaults(args.recipe)
    return GPTConfig(sequence_len=longest, vocab_size=args.vocab, **shape, **more)


def random_params(gpt: GPT) -> dict:
    """Weights none of which is zero, so that nothing can be skipped."""
    shapes = jax.eval_shape(partial(init_params, gpt.cfg), jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    # Leaf by leaf: one program that draws them all takes a GPU's compiler longer than a minute.
    draw = jax.jit(
        lambda key, shape: 0.02 * jax.random.normal(key, shape, gpt.dtype), static_argnums=1
    )
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [draw(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def device_name() -> str:
    """As JAX calls it."""
    return jax.devices()[0].device_kind


def copy_bandwidth(size: int) -> float:
    """Bytes a second, read and written, of the best of some copies of `size` bytes.

    In place: fresh pages would be counted otherwise.
    """
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jax.block_until_ready(copy(jnp.zeros(size // 4, jnp.float32)))
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        x = jax.block_until_ready(copy(x))
        times.append(time.perf_counter() - begun)
    return 2 * size / min(times)


def weight_bytes(params: dict) -> int:
    """Bytes of weights that every step reads, however few rows there are."""
    read = {name: leaf for name, leaf in params.items() if not name.startswith(EMBEDDINGS)}
    return sum(leaf.nbytes for leaf in jax.tree.leaves(read))


def measure(
    model: Model, batch: int, args: argparse.Namespace, copied: float, published: float
) -> dict[str, float]:
    """Median time of a dispatch over `batch` rows with `context` cached tokens each."""
    specials = decode.Specials(-1, -1, (-1,))
    chunk = partial(decode.decode_chunk, model.gpt.apply, choose_sample(), specials, 0)
    run = jax.jit(chunk, donate_argnums=1, compiler_options=loop_options())
    dtype = jnp.dtype(model.gpt.dtype)
    cache = init_cache(model.cfg, batch, args.context + args.steps, dtype)
    rows = settings(batch, args)
    times = []
    for i in range(args.dispatches + 3):
        begun = time.perf_counter()
        cache, chunk = run(model.params, cache, rows, np.int32(args.steps))
        chunk = jax.device_get(chunk)
        times += [time.perf_counter() - begun] if i >= 3 else []
        assert chunk.valid_KB.all()
    kv = kv_bytes_read(model.cfg, args.context, dtype.itemsize) * batch
    step_s, read = statistics.median(times) / args.steps, weight_bytes(model.params) + kv
    row = {
        "batch": batch,
        "tokens_per_s": batch / step_s,
        "step_ms": 1e3 * step_s,
        "bytes_per_step": read,
        "floor_tokens_per_s": batch * copied / read,
        "share_of_floor": read / copied / step_s,
    }
    if math.isfinite(published):
        row["share_of_published_floor"] = read / published / step_s
    print({key: round(value, 3) for key, value in row.items()}, flush=True)
    return row


def settings(batch: int, args: argparse.Namespace) -> decode.Rows:
    """Rows that never stop, each in the middle of its reply."""
    rows = idle_rows(batch, args.steps)
    rows.running_B[:], rows.run_on_B[:] = True, True
    rows.budget_B[:], rows.length_B[:] = 1 << 20, args.context
    rows.temperature_B[:], rows.top_k_B[:] = args.temperature, args.top_k
    rows.seed_B[:] = np.arange(batch)
    return rows


if __name__ == "__main__":
    main()
