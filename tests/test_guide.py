"""The commands of the documents: every one is read as its program reads it, the guide's are run."""

import importlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from nanochat_jax import devices, pipeline
from nanochat_jax.config import checkpoints, convert, data, evals, flags, old_words
from nanochat_jax.config.resolve import SECTIONS
from scripts import plan as plan_program
from tests.test_pipeline import TINY

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "guide.md"
DOCUMENTS = [ROOT / "README.md", *(p for p in (ROOT / "docs").glob("*.md") if p.name != "log.md")]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
TABLES = {"checkpoints": checkpoints, "convert": convert, "data": data}
# `bash`: run below; `sh`: needs a network, GPUs or somebody to end it, and is read alone.
COMMAND = re.compile(r"python -m scripts\.(\w+)([^\n`]*)")


def blocks(document: Path, language: str) -> list[str]:
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def commands(text: str) -> list[tuple[str, ...]]:
    """The programs of ours that a text names, each as (name, *arguments).

    Of a synopsis its first reading: `--stage tokenizer|base [--resume]` is `--stage tokenizer
    --resume`.
    """
    found = []
    for name, rest in COMMAND.findall(text):
        words = shlex.split(re.sub(r" \.\.\.|[\[\]]", "", rest), comments=True)
        if words:
            found.append((name, *(re.sub(r"\|.*", "", word) for word in words)))
    return found


def parse(name: str, argv: list[str]) -> None:
    """Raises, or exits, where the program would refuse its command line."""
    if f"scripts.{name}" in old_words.COMMANDS:
        module, *argv = old_words.translated(f"scripts.{name}", argv)
        return parse(module.removeprefix("scripts."), argv)
    if name == "train":
        pipeline.configure(*pipeline.split_stage(argv))
    elif name == "roofline":
        device, rest = flags.take(argv, "device")
        assert device
        pipeline.configure("base", rest)
    elif name == "eval" and argv[:1] and argv[0] in evals.COMMANDS:
        flags.command(evals.COMMANDS, argv)
    elif name == "plan":
        flags.whole(argv, plan_program.WritePlan, prog="scripts.plan")
    elif name in TABLES:
        flags.command(TABLES[name].COMMANDS, argv)
    elif name in SECTIONS:
        pipeline.configure(name, argv)
    else:
        assert hasattr(importlib.import_module(f"scripts.{name}"), "main")


EVERY = sorted({c for d in DOCUMENTS for c in commands(d.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_every_command_of_a_document_is_one_that_its_program_takes(command, base_dir, monkeypatch):
    monkeypatch.chdir(ROOT)
    name, *argv = command
    # The file of two machines is made in the line before, from this one.
    argv = ["configs/d20.toml" if arg == "two-nodes.toml" else arg for arg in argv]
    try:
        parse(name, argv)
    except SystemExit as stop:
        assert stop.code == 0 and "--help" in argv


@pytest.fixture
def newcomer(base_dir, tmp_path, monkeypatch):
    """A folder with the files that the guide speaks of, and a model that trains in a second."""
    (tmp_path / "tiny.toml").write_text('mesh = "1"\n' + TINY)
    monkeypatch.setattr(pipeline, "default_file", lambda: tmp_path / "tiny.toml")
    here = tmp_path / "here"
    (here / "books").mkdir(parents=True)
    words = "The old mill by the river turns when the wind is asleep. "
    for place in (here / "books" / "one.txt", here / "notes.txt"):
        place.write_text("\n\n".join(f"{place.stem} {n}. {words * 9}" for n in range(60)))
    turns = lambda n: [{"role": "user", "content": f"What is {n}?"},
                       {"role": "assistant", "content": f"{n} is a number."}]  # fmt: skip
    chats = [json.dumps({"messages": turns(n)}) for n in range(120)]
    (here / "chats.jsonl").write_text("\n".join(chats) + "\n")
    facts = next(text for text in blocks(GUIDE, "text") if "creator" in text)
    (here / "facts.txt").write_text(facts)
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hello!\n")))
    return here


@pytest.mark.slow
def test_the_guide_can_be_walked_from_its_first_command_to_its_last(newcomer, capsys, monkeypatch):
    """In one process, so that JAX is imported once and compiled programs are shared."""
    monkeypatch.setattr(devices, "prepare", lambda kind="", *_, **__: devices.resolve_kind(kind))
    for language, text in BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, str(GUIDE), "exec"), {})  # noqa: S102
        for name, *argv in commands(text) if language == "bash" else ():
            try:
                code = importlib.import_module(f"scripts.{name}").main(argv)
            except SystemExit as stop:
                code = stop.code
            assert not code, (name, argv, capsys.readouterr().err)
    assert (newcomer / "hf" / "config.json").exists()
    assert "report.html" in capsys.readouterr().out
