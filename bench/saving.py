"""What saving costs a run, and what it takes of the host's memory and time.

`python -m bench.saving overhead [--rounds 5] [--window 12] [--every 50]`: windows of steps of a
model of 59 million parameters on this machine's CPU, in turn without and with a save at their
start; prints the stall of a save (the time that `Saver.save` takes from the training thread), how
much longer a window takes with one, in seconds of the clock and of the processors (which other
programs disturb less), and how long it is until the step is on disk. The overhead is what a save
costs over the time of `--every` steps.

`python -m bench.saving memory [--depth 20]`: parameters and optimizer state of the classic model of
that depth, drawn at random, are saved while a donated update of all of them runs, and restored in a
fresh process; prints the most host memory used (anonymous pages beyond those of the empty process,
sampled every 5 ms) as multiples of the state's size, with digests taken and, on the way back,
checked. On a CPU the state itself is in host memory too, as 1 of the multiple.

The last line of each is one JSON object. Files go to `--dir`, by default a temporary folder.
"""

import argparse
import ctypes
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

GB = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["overhead", "memory", "restore"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=int, default=12, help="steps that are timed together")
    parser.add_argument("--every", type=int, default=50, help="steps from save to save")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--dir", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = args.dir or pathlib.Path(folder)
        if args.what == "overhead":
            print(json.dumps(overhead(args.rounds, args.window, args.every, where)))
        elif args.what == "memory":
            print(json.dumps(saved_in_memory(args.depth, where) | restored(args.depth, where)))
        else:
            print(json.dumps(restored_in_memory(args.depth, where)))


def overhead(rounds: int, window: int, every: int, folder: pathlib.Path) -> dict[str, Any]:
    """Windows of steps, in turn without and with a save at the beginning."""
    import jax

    from nanochat_jax.checkpoint.saver import Saver
    from nanochat_jax.config.saving import Keep

    trainer, state, batch = small_run()
    size = sum(a.nbytes for a in jax.tree.leaves((state.params, state.opt_state)))
    begun, stalls, until_saved = [], [], []
    took: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    done = lambda path: until_saved.append(time.perf_counter() - begun[-1])
    with Saver(folder, folder, Keep(last=1), saved=done) as saver:
        for n in range(2 * rounds + 1):  # the first warms up
            start, spent = time.perf_counter(), time.process_time()
            if saves := n % 2 == 0 and n > 0:
                begun.append(start)
                meta = {"config": {"keep": "last=1"}}
                saver.save(n, state.params, meta, optimizer=state.opt_state, loader=None)
                stalls.append(time.perf_counter() - start)
            for _ in range(window):
                state, metrics = trainer.step(state, batch)
                jax.block_until_ready(metrics)
            clock = time.perf_counter() - start
            saver.wait()  # what is left of it is counted for the processors, not for the clock
            if n > 0:
                took[saves].append((clock, time.process_time() - spent))
            print(f"{window} steps{' and a save' * saves}: {clock:.2f} s", file=sys.stderr)
    middle = lambda i, saves: statistics.median(each[i] for each in took[saves])
    clock, processors = (middle(i, True) - middle(i, False) for i in (0, 1))
    return {
        "parameters": sum(a.size for a in jax.tree.leaves(state.params)),
        "state_GB": round(size / GB, 3),
        "step_ms": round(1e3 * middle(0, False) / window, 1),
        "stall_ms": [round(1e3 * s, 1) for s in stalls],
        "on_disk_after_s": [round(s, 2) for s in until_saved],
        "save_clock_s": round(clock, 3),
        "save_processor_s": round(processors, 3),
        "overhead_percent": round(100 * clock / (middle(0, False) * every / window), 2),
        "overhead_percent_of_processors": round(
            100 * processors / (middle(1, False) * every / window), 2
        ),
    }


def small_run() -> tuple[Any, Any, Any]:
    """A model of 59 million parameters, its state, and a batch of one row of 256 tokens."""
    from nanochat_jax.devices import prepare

    prepare("cpu")
    import jax
    import numpy as np

    from nanochat_jax import sharding
    from nanochat_jax.config.gpt import GPTConfig, shape_of_depth
    from nanochat_jax.config.stages import BaseTrain
    from nanochat_jax.models.gpt import init_params
    from nanochat_jax.train import setup
    from nanochat_jax.train.curriculum import StepRows

    T, V = 256, 32768
    cfg = GPTConfig(sequence_len=T, vocab_size=V, **shape_of_depth(8, 64, 128))
    config = BaseTrain(device_batch_size=1, max_seq_len=T, total_batch_size=T, num_iterations=9999)
    trainer = setup.trainer(config, cfg, sharding.make_mesh("1"), steps=9999)
    state = trainer.fresh_state(init_params(cfg, jax.random.key(0)))
    ids = np.random.default_rng(0).integers(0, V, (1, 1, T + 1)).astype(np.int32)
    return trainer, state, trainer.place(StepRows(ids[:, :, :-1], ids[:, :, 1:], tokens=T))


def shapes(depth: int) -> Any:
    """Parameters and optimizer state of the classic model, as shapes."""
    from nanochat_jax.devices import prepare

    prepare("cpu")
    import jax

    from nanochat_jax import sharding
    from nanochat_jax.config.gpt import GPTConfig, shape_of_depth
    from nanochat_jax.config.stages import BaseTrain
    from nanochat_jax.train import setup

    cfg = GPTConfig(sequence_len=2048, vocab_size=65536, **shape_of_depth(depth, 64, 128))
    config = BaseTrain(depth=depth, num_iterations=9999)
    state = setup.trainer(config, cfg, sharding.make_mesh("1"), steps=9999).state
    return {"params": state.params, "optimizer": state.opt_state}, jax


def saved_in_memory(depth: int, folder: pathlib.Path) -> dict[str, Any]:
    """Saves once while every array is replaced by a donated update, as the next step does."""
    like, jax = shapes(depth)
    from nanochat_jax.checkpoint.saver import Saver
    from nanochat_jax.config.saving import Keep

    empty = anonymous_bytes()
    leaves, tree = jax.tree.flatten(like)
    drawn = [drawn_as(jax, i, leaf) for i, leaf in enumerate(leaves)]
    jax.block_until_ready(drawn)
    size = sum(a.nbytes for a in drawn)
    update = jax.jit(lambda a: a * 1, donate_argnums=0)
    state = tree.unflatten(drawn)
    del drawn
    # What drawing has freed and the C library keeps would hide what saving takes.
    ctypes.CDLL(None).malloc_trim(0)
    drawn_bytes = anonymous_bytes() - empty
    with Peak() as peak:
        start = time.perf_counter()
        with Saver(folder, folder, Keep()) as saver:
            saver.save(1, state["params"], {}, optimizer=state["optimizer"], loader=None)
            stall = time.perf_counter() - start
            state = jax.block_until_ready(jax.tree.map(update, state))
        took = time.perf_counter() - start
    return {
        "parameters": sum(a.size for a in jax.tree.leaves(state["params"])),
        "state_GB": round(size / GB, 2),
        "largest_array_GB": round(max(a.nbytes for a in jax.tree.leaves(state)) / GB, 3),
        "state_in_memory": round(drawn_bytes / size, 3),
        "save_whole": round((peak.most - empty) / size, 3),
        "save_s": round(took, 1),
        "stall_ms": round(1e3 * stall),
    }


def drawn_as(jax: Any, i: int, leaf: Any) -> Any:
    """Random bits: nothing that a file system could keep smaller."""
    if leaf.dtype.kind == "i":
        return jax.numpy.zeros(leaf.shape, leaf.dtype)
    return jax.random.normal(jax.random.key(i), leaf.shape, leaf.dtype)


def restored(depth: int, folder: pathlib.Path) -> dict[str, Any]:
    """`restored_in_memory`, in a fresh process."""
    command = ["-m", "bench.saving", "restore", f"--depth={depth}", f"--dir={folder}"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def restored_in_memory(depth: int, folder: pathlib.Path) -> dict[str, Any]:
    """Checks every digest and restores all arrays; the whole, not what comes on top."""
    like, jax = shapes(depth)
    from nanochat_jax.checkpoint import store

    saved, empty = store.find(folder), anonymous_bytes()
    with Peak() as peak:
        start = time.perf_counter()
        store.verify(saved)
        verified = time.perf_counter() - start
        state = saved.params(like["params"]), saved.optimizer(like["optimizer"])
        jax.block_until_ready(state)
        took = time.perf_counter() - start
    size = sum(a.nbytes for a in jax.tree.leaves(state))
    return {
        "restore_whole": round((peak.most - empty) / size, 3),
        "verify_s": round(verified, 1),
        "restore_s": round(took, 1),
    }


class Peak:
    """`most`: the most anonymous memory of this process inside the block."""

    def __enter__(self) -> "Peak":
        self.most = anonymous_bytes()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            self.most = max(self.most, anonymous_bytes())


def anonymous_bytes() -> int:
    """Memory of this process that is no file's (Linux)."""
    text = pathlib.Path("/proc/self/status").read_text("ascii")
    return 1024 * int(next(x for x in text.splitlines() if x.startswith("RssAnon")).split()[1])


if __name__ == "__main__":
    main()
