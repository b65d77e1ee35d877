"""The notebook for free GPUs: it is stored clean, its commands exist, and it survives a kill."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import psutil
import pytest

from nanochat_jax.config import paths
from tests import needs
from tests.test_guide import COMMAND, commands, parse
from tests.train.test_loop import losses

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILE = ROOT / "notebooks" / "free-gpu.ipynb"
NOTEBOOK = json.loads(FILE.read_text(encoding="utf-8"))
CELLS = {cell["id"]: cell for cell in NOTEBOOK["cells"]}
# What stands for the expressions in its commands when they are only read.
VALUES = {
    "python": "python", "config": "configs/cpu-portable.toml", "hours": "2", "save_every": "10m",
    "text": "books/", "base": "there", "hub": "USER/NAME", "asked": "'Who?'",
}  # fmt: skip
TINY = """
recipe = "portable"
embedded_world = true
device_batch_size = 2
max_seq_len = 96
total_batch_size = 384
mesh = "1"
sample_every = -1
eval_tokens = 384
[tokenizer]
vocab_size = 320
max_chars = 20000
[base]
depth = 1
aspect_ratio = 32
head_dim = 32
num_iterations = 60
eval_every = -1
[mid]
num_iterations = 2
mixture = ["conversations:200", "documents:50"]
val_mixture = ["conversations:20"]
[sft]
num_iterations = 2
total_batch_size = -1
target_examples_per_step = 4
packing = "bestfit"
eval_steps = 2
eval_metrics_every = -1
mixture = ["conversations:200"]
val_mixture = ["conversations:20"]
[eval]
tasks = "bpb"
split_tokens = 384
device_batch_size = 2
[speedrun]
download = 0
"""
STEPS, SAVED, KILLED_AT = 60, 10, 25


def source(cell) -> str:
    return "".join(cell["source"])


def test_it_is_stored_without_what_a_run_leaves_and_with_names_of_its_cells():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len(CELLS) == len(NOTEBOOK["cells"])
    assert all(re.fullmatch(r"[a-z-]{3,64}", name) for name in CELLS)
    code = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    stored = json.dumps(NOTEBOOK, indent=1, ensure_ascii=False) + "\n"
    assert FILE.read_text(encoding="utf-8") == stored


def test_its_commands_are_ones_that_their_programs_take(base_dir, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = re.findall(r"^ *!(.*-m scripts.*)$", "\n".join(map(source, CELLS.values())), re.M)
    filled = [re.sub(r"\{(.+?)\}", lambda m: VALUES[m[1]], line) for line in lines]
    found = [command for line in filled for command in commands(line)]
    assert len(found) == len(lines) == 7 and all(COMMAND.match(line) for line in filled)
    for name, *argv in found:
        parse(name, argv)


def descendants(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


class Session:
    """The notebook in a kernel of its own, from the first cell on, with other settings."""

    def __init__(self, folder: pathlib.Path, **settings):
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.reads(json.dumps(NOTEBOOK), as_version=4)
        nbformat.validate(notebook)
        given = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
        # As papermill does: a cell behind the one with that tag.
        at = next(n for n, cell in enumerate(notebook.cells) if cell.metadata.get("tags"))
        notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(given))
        where = {"metadata": {"path": str(folder)}}
        self.client = NotebookClient(notebook, timeout=240, kernel_name="python3", resources=where)

    def run(self) -> None:
        self.client.execute()

    def kill(self) -> None:
        """What a machine that vanishes leaves: nothing of the kernel and all that it started."""
        alive = descendants(self.client.km.provisioner.pid)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=10)
        assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def printed(self, name: str) -> str:
        cell = next(cell for cell in self.client.nb.cells if cell.id == name)
        return "".join(str(out.get("text", out.get("data"))) for out in cell.outputs)


def kill_at(session: Session, directory: pathlib.Path, step: int, done: threading.Event) -> None:
    metrics = directory / "metrics.jsonl"
    while not done.wait(0.005):
        if metrics.exists() and metrics.read_bytes().count(b"\n") > step:
            return session.kill()


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Programs that the notebook starts find this tree and one compilation cache."""
    for name, value in {
        "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "IPYTHONDIR": str(tmp_path / "ipython"),
        "HF_HUB_OFFLINE": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def arrays(step: pathlib.Path) -> dict[str, bytes]:
    kept = (step / "params", step / "optimizer")
    files = [file for folder in kept for file in folder.rglob("*") if file.is_file()]
    named = {str(file.relative_to(step)): file.read_bytes() for file in files}
    # Orbax writes into these where the step lay.
    return {name: data for name, data in named.items() if "commit_success" not in name}


@pytest.mark.slow
def test_killed_in_training_it_goes_on_to_the_same_bytes_and_ends_in_a_chat_and_a_gguf(
    tmp_path, environment, monkeypatch
):
    needs.package("nbclient")
    import gguf
    from nbclient.exceptions import DeadKernelError

    (tmp_path / "tiny.toml").write_text(TINY)
    base, whole = tmp_path / "base", tmp_path / "whole"
    for folder in (base, whole):
        folder.mkdir()
        (folder / "jax_cache").symlink_to(ROOT / ".cache" / "jax")
    run, unbroken = (folder / "base_checkpoints" / "d1" for folder in (base, whole))
    settings = dict(size=str(tmp_path / "tiny.toml"), where=str(base), save_every=str(SAVED))
    first, done = Session(ROOT / "notebooks", **settings), threading.Event()
    killer = threading.Thread(target=kill_at, args=(first, run, KILLED_AT, done))
    killer.start()
    try:
        with pytest.raises(DeadKernelError):
            first.run()
    finally:
        done.set()
        killer.join()
    steps = paths.steps(run)
    assert KILLED_AT - 2 * SAVED <= steps[-1] < STEPS and not (base / "mid_checkpoints").exists()

    second = Session(ROOT / "notebooks", **settings)
    second.run()
    assert "base: going on where it stopped" in second.printed("train")
    assert re.search(r"\w{3}", second.printed("chat")), "a reply, whatever so small a model says"
    assert "<iframe" in second.printed("report") and "127.0.0.1" in second.printed("web")
    file = next((base / "gguf").glob("*.gguf"))
    header = gguf.GGUFReader(file)
    assert header.get_field("general.architecture").contents() == "apertus"
    assert header.get_field("apertus.block_count").contents() == 1
    assert (base / "gguf" / "Modelfile").exists()

    for kept in ("tokenizer", "world_data"):
        shutil.copytree(base / kept, whole / kept)
    command = ["-m", "scripts.train", "--stage=base", f"--config={settings['size']}"]
    env = os.environ | {"NANOCHAT_BASE_DIR": str(whole)}
    subprocess.run([sys.executable, *command], env=env, cwd=ROOT, check=True, capture_output=True)
    assert losses(run) == losses(unbroken)
    assert arrays(run / f"{STEPS:06}") == arrays(unbroken / f"{STEPS:06}") != {}
