"""What `--recipe portable` costs beside classic: bits per byte of held-out text, several seeds.

`python bench/portable.py BASE [--steps 300] [--seeds 3]` trains both recipes on the shards of a
base directory (`BASE/base_data`), each with its own tokenizer, by the project's own commands. Bits
per byte compare models whose tokens differ. The last line is one JSON object.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

RECIPES = ("classic", "portable")
# Rates of a small model: the recipe's own are for batches of half a million tokens.
SETTINGS = """
device_batch_size = 4
max_seq_len = 256
total_batch_size = 1024
mesh = "1"
[tokenizer]
vocab_size = 2048
max_chars = 20_000_000
[base]
depth = 4
aspect_ratio = 64
head_dim = 128
embedding_lr = 0.15
matrix_lr = 0.03
warmdown_ratio = 0.3
eval_every = 100_000  # and at the end
eval_tokens = 262144
sample_every = -1
core_metric_every = -1
save_every = -1
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=pathlib.Path, help="base directory with base_data/")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, list[float]] = {recipe: [] for recipe in RECIPES}
    for seed in range(args.seeds):
        for recipe in RECIPES:
            found[recipe].append(final_bpb(args.base, recipe, seed, args.steps))
            print(f"{recipe:9} seed {seed}: {found[recipe][-1]:.4f} bits per byte", flush=True)
    above = [p - c for c, p in zip(found["classic"], found["portable"], strict=True)]
    spread = statistics.stdev(above) if len(above) > 1 else None
    print(json.dumps({"steps": args.steps, "bpb": found, "above": statistics.mean(above),
                      "sd_of_above": spread}))  # fmt: skip


def final_bpb(base: pathlib.Path, recipe: str, seed: int, steps: int) -> float:
    """Of a run from the tokenizer on, in a base directory of its own."""
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        shutil.copytree(base / "base_data", root / "base_data")
        (root / "c.toml").write_text(SETTINGS)
        env = os.environ | {"NANOCHAT_BASE_DIR": name}
        train = [sys.executable, "-m", "scripts.train", "--config", str(root / "c.toml"),
                 "--recipe", recipe]  # fmt: skip
        mine = ["--seed", str(seed), "--num-iterations", str(steps)]
        for stage in (["--stage", "tokenizer"], ["--stage", "base", *mine]):
            subprocess.run([*train, *stage], env=env, check=True, capture_output=True)
        lines = (root / "base_checkpoints" / "d4" / "metrics.jsonl").read_text().splitlines()
        values = [json.loads(line).get("val/bpb") for line in lines]
        return [value for value in values if value is not None][-1]


if __name__ == "__main__":
    main()
