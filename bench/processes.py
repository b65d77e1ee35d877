"""The curve of one small run on 1, 2, 4 and 8 devices and in 1, 2 and 4 processes, side by side.

Everything runs on this machine's CPU, over simulated devices and 127.0.0.1:
`python -m bench.processes`. What differs is the order in which floats are summed.
"""

import pathlib
import shutil
import tempfile

import numpy as np

from tests.hosts import world

# (processes, devices)
CASES = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (4, 8), (2, 4), (4, 4))
COMMAND = "train --stage base --loader-ranks 8"


def curve(begun: pathlib.Path, processes: int, devices: int) -> tuple[list[float], list[float]]:
    """(losses, bits per byte) of the run."""
    root = begun.parent / f"p{processes}-d{devices}"
    shutil.copytree(begun, root)
    world.run(root, COMMAND, processes, devices)
    return world.numbers(root, "train/loss"), world.numbers(root, "val/bpb")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        begun = pathlib.Path(folder, "begun")
        world.run(begun, "train --stage tokenizer", 1, 0)
        curves = {case: curve(begun, *case) for case in CASES}
    first_loss, first_bpb = map(np.asarray, curves[CASES[0]])
    print("| processes | devices | loss of every step | bits per byte | most apart |")
    print("|---|---|---|---|---|")
    for (processes, devices), (loss, bpb) in curves.items():
        apart = max(np.abs(loss / first_loss - 1).max(), np.abs(bpb / first_bpb - 1).max())
        texts = (" ".join(f"{x:.5f}" for x in values) for values in (loss, bpb))
        print(f"| {processes} | {devices} | {' | '.join(texts)} | {apart:.1e} |")


if __name__ == "__main__":
    main()
