"""A d20-sized checkpoint of nanochat through `interop`: seconds, and memory beside its size.

    python bench/bridge.py [--depth 20] [--recipes classic current] [--dir FOLDER]

Writes a random checkpoint as a CUDA run leaves it (tables in bfloat16, the rest in float32), then
times in a process of its own each, files warm in the page cache or not as the machine has it:

    read      torch's file to arrays of JAX on this device, every byte compared with its checksum
    import    scripts.convert import, to a checkpoint of ours on disk
    load      that checkpoint as load_model gives it, verified
    export    scripts.convert export, back to nanochat's files; they are equal to the byte

Memory is the most that the process had resident, mapped files included, above what it had before;
goals: read under 1.3 times the file's size and under 20 s. Needs disk for three copies and RAM for
one and a bit. Ends with one line of JSON.
"""

import argparse
import filecmp
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

JOBS = ("read", "import", "load", "export")
GOAL_MEMORY, GOAL_SECONDS = 1.3, 20.0


def write_checkpoint(root: Path, depth: int, recipe: str) -> Path:
    """A base directory of nanochat's with one random model; returns the model's file."""
    from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults, shape_of_depth
    from nanochat_jax.interop import eras, nanochat
    from nanochat_jax.tokenizer import SPECIAL_TOKENS, SPLIT_PATTERN, Tokenizer

    vocab = {"classic": 65536, "current": 32768}[recipe]
    cfg = GPTConfig(**recipe_model_defaults(recipe), **shape_of_depth(depth), sequence_len=2048,
                    vocab_size=vocab)  # fmt: skip
    words = vocab - len(SPECIAL_TOKENS)
    ranks = {bytes([i]): i for i in range(256)}
    ranks |= {bytes([i >> 8, i & 255]): i + 256 for i in range(words - 256)}
    specials = {name: words + i for i, name in enumerate(SPECIAL_TOKENS)}
    shape = {name: getattr(cfg, name) for name in eras.SHAPE}
    if recipe == "current":
        shape["window_pattern"] = cfg.window_pattern
    rng = np.random.default_rng(0)
    state = {}
    for key, size in eras.expected_shapes(cfg).items():
        table = key == "transformer.wte.weight" or key.startswith("value_embeds.")
        values = rng.standard_normal(size, np.float32) * np.float32(0.02)
        state[key] = values.astype(ml_dtypes.bfloat16) if table else values
    meta = {"step": 1, "val_bpb": 1.0, "model_config": shape, "user_config": {"depth": depth}}
    tokenizer = Tokenizer(ranks, SPLIT_PATTERN, specials)
    folder = nanochat.write(root, "base", f"d{depth}", 1, state, meta, tokenizer)
    return folder / "model_000001.pt"


def run(job: str, root: Path) -> None:
    """Does one job below `root`, in this process."""
    import jax
    import jax.numpy as jnp

    from nanochat_jax import interop
    from nanochat_jax.checkpoint import load_model
    from nanochat_jax.config.convert import Export, Import
    from nanochat_jax.interop import nanochat

    os.environ["NANOCHAT_BASE_DIR"] = str(root / "ours")
    jax.block_until_ready(jnp.zeros(1))
    before, start = resident("VmRSS"), time.perf_counter()
    if job == "read":
        contents = nanochat.read(nanochat.find(root / "theirs"))
        state, params = contents.state, {}
        del contents
        for key in list(state):  # one tensor at a time: its mapped pages go as it is copied
            params[key] = jax.block_until_ready(jnp.array(state.pop(key)))
    elif job == "import":
        interop.import_model(Import(dir=str(root / "theirs")))
    elif job == "load":
        jax.block_until_ready(load_model("base")[0].params)
    else:
        interop.export_model(Export(dir=str(root / "again"), source="base"))
    seconds, most = time.perf_counter() - start, resident("VmHWM") - before
    print(json.dumps({"job": job, "seconds": round(seconds, 2), "memory": most}))


def resident(name: str) -> int:
    """Bytes of this process in memory: now (VmRSS) or at most (VmHWM). Linux."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024


def measure(recipe: str, depth: int, root: Path) -> list[dict]:
    """A row of every job."""
    model = write_checkpoint(root / "theirs", depth, recipe)
    size, rows = model.stat().st_size, []
    for job in JOBS:
        command = [sys.executable, __file__, "--job", job, "--dir", str(root)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        row |= {"recipe": recipe, "bytes": size, "share": round(row["memory"] / size, 3)}
        goal = ""
        if job == "read":
            good = row["share"] < GOAL_MEMORY and row["seconds"] < GOAL_SECONDS
            goal = "  goal met" if good else "  GOAL MISSED"
        print(f"  {job:7s} {row['seconds']:6.1f} s   {row['share']:.2f} x the file in memory{goal}")
        rows.append(row)
    again = root / "again" / model.relative_to(root / "theirs")
    same = filecmp.cmp(model, again, shallow=False)
    print(f"  the exported model file is {'equal to the byte' if same else 'ANOTHER'}")
    return [{**row, "equal": same} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--recipes", nargs="+", default=["classic", "current"])
    parser.add_argument("--dir", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        return run(args.job, args.dir)
    rows = []
    for recipe in args.recipes:
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            print(f"{recipe} d{args.depth}")
            rows += measure(recipe, args.depth, Path(folder))
    print(json.dumps({"bench": "bridge", "depth": args.depth, "rows": rows}))
    return None


if __name__ == "__main__":
    main()
