"""The notebook for free GPUs: it is stored clean, its commands exist, and it survives a kill."""

import json
import pathlib
import re
import shutil
import threading
from typing import NamedTuple

import psutil
import pytest

from nanochat_jax.config import paths
from nanochat_jax.serve.startup import ERASE
from tests import needs, test_pipeline
from tests.test_guide import COMMAND, commands, parse
from tests.test_pipeline import program

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILE = ROOT / "notebooks" / "free-gpu.ipynb"
NOTEBOOK = json.loads(FILE.read_text(encoding="utf-8"))
CELLS = {cell["id"]: cell for cell in NOTEBOOK["cells"]}
# What stands for the expressions in its commands when they are only read.
VALUES = {
    "python": "python", "config": "configs/cpu-portable.toml", "hours": "2", "save_every": "10m",
    "texts": "books/", "folder": "there", "hub": "USER/NAME", "asked": "'Who?'",
}  # fmt: skip
STEPS, SAVED, KILLED_AT = 60, 10, 25
# The chain's own, in a recipe that GGUF knows, and long enough to be killed in base.
TINY = 'recipe = "portable"\nmesh = "1"\n' + test_pipeline.TINY.replace(
    "num_iterations = 4\neval_every = 2", f"num_iterations = {STEPS}\neval_every = -1"
)


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

    def stops(self, why: str) -> None:
        from nbclient.exceptions import CellExecutionError

        with pytest.raises(CellExecutionError, match=why):
            self.run()

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


def arrays(step: pathlib.Path) -> dict[str, bytes]:
    kept = (step / "params", step / "optimizer")
    files = [file for folder in kept for file in folder.rglob("*") if file.is_file()]
    named = {str(file.relative_to(step)): file.read_bytes() for file in files}
    # Orbax writes into these where the step lay.
    return {name: data for name, data in named.items() if "commit_success" not in name}


def losses(base, folder):
    lines = (base / folder / "metrics.jsonl").read_text().splitlines()
    return [e["train/loss"] for e in map(json.loads, lines) if "train/loss" in e]


class Run(NamedTuple):
    """What the notebook left that was killed and run again: its folder, and the second session.
    `last`: the step that was on disk after the kill."""

    base: pathlib.Path
    config: pathlib.Path
    session: Session
    last: int

    @property
    def steps(self) -> pathlib.Path:
        return self.base / "base_checkpoints" / "d1"


def empty(base: pathlib.Path) -> pathlib.Path:
    """A base directory with the tests' compilation cache."""
    base.mkdir()
    (base / "jax_cache").symlink_to(ROOT / ".cache" / "jax")
    return base


@pytest.fixture(scope="module")
def survived(tmp_path_factory):
    needs.package("nbclient")
    folder = tmp_path_factory.mktemp("notebook")
    (config := folder / "tiny.toml").write_text(TINY)
    base = empty(folder / "base")
    settings = dict(size=str(config), where=str(base), save_every=str(SAVED))
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "IPYTHONDIR": str(folder)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        last = killed(Session(ROOT / "notebooks", **settings), base / "base_checkpoints" / "d1")
        session = Session(ROOT / "notebooks", **settings)
        session.run()
    return Run(base, config, session, last)


def killed(session: Session, steps: pathlib.Path) -> int:
    """Runs a session that dies in base training; the step that is on disk then."""
    from nbclient.exceptions import DeadKernelError

    done = threading.Event()
    killer = threading.Thread(target=kill_at, args=(session, steps, KILLED_AT, done))
    killer.start()
    try:
        with pytest.raises(DeadKernelError):
            session.run()
    finally:
        done.set()
        killer.join()
    return paths.steps(steps)[-1]


@pytest.mark.slow
def test_killed_in_training_it_goes_on_to_the_bytes_of_a_run_that_was_not(survived, tmp_path):
    assert KILLED_AT - 2 * SAVED <= survived.last < STEPS
    assert "base: going on where it stopped" in survived.session.printed("train")
    whole = empty(tmp_path / "whole")
    for kept in ("tokenizer", "world_data"):
        shutil.copytree(survived.base / kept, whole / kept)
    code, said = program(whole, "scripts.train", "--stage=base", f"--config={survived.config}")
    assert code == 0, said
    unbroken = survived._replace(base=whole).steps
    assert losses(survived.base, survived.steps) == losses(whole, unbroken)
    assert arrays(survived.steps / f"{STEPS:06}") == arrays(unbroken / f"{STEPS:06}") != {}


@pytest.mark.slow
def test_it_ends_with_a_report_a_chat_a_page_and_a_gguf_file(survived):
    session = survived.session
    assert "| val bpb |" in session.printed("train") and "<iframe" in session.printed("report")
    # Behind the line of the loading, erased: whatever so small a model says.
    _, erased, reply = session.printed("chat").rpartition(ERASE)
    assert erased and re.search(r"\w", reply), session.printed("chat")
    assert "127.0.0.1" in session.printed("web")
    import gguf

    header = gguf.GGUFReader(next((survived.base / "gguf").glob("*.gguf")))
    assert header.get_field("general.architecture").contents() == "apertus"
    assert header.get_field("apertus.block_count").contents() == 1
    assert (survived.base / "gguf" / "Modelfile").exists()


@pytest.mark.slow
def test_what_is_done_is_skipped_rl_comes_behind_it_and_other_settings_are_refused(
    survived, tmp_path
):
    again = lambda config, *more: program(
        survived.base, "scripts.speedrun", f"--config={config}", *more, cwd=tmp_path
    )
    code, said = again(survived.config, "--rl")
    assert code == 0 and said.count("done before, skipped") == 4, said
    assert len(losses(survived.base, "chatrl_checkpoints/d1")) == 2 and "chat_web -i rl" in said
    assert "| val bpb |" in said and (tmp_path / "report.md").exists()
    changed = tmp_path / "changed.toml"
    changed.write_text(TINY.replace("depth = 1", "depth = 1\nseed = 7"))
    code, said = again(changed)
    assert code == 2 and "seed: was 42, now 7" in said and "--fresh" in said


@pytest.mark.slow
def test_text_that_is_not_there_and_a_program_that_is_not_stop_it_with_what_to_do(
    tmp_path, monkeypatch
):
    needs.package("nbclient")
    for name, value in {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "my home")}.items():
        monkeypatch.setenv(name, value)
    given = dict(size="configs/cpu-portable.toml", where=str(tmp_path / "to keep"))
    session = Session(FILE.parent, text="no book.txt", **given)
    session.stops("the text was not taken")
    # As the person meant it: from where the notebook lies, not from where its cells run.
    assert str(FILE.parent / "no book.txt") in session.printed("data").replace("\r\n", "")
    session = Session(tmp_path, repository=str(tmp_path / "mistyped"))
    session.stops("write your copy's address into repository")
    assert "mistyped" in session.printed("install")
