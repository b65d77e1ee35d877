"""One style of error: a line that says what was expected, what came, and what to type."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nanochat_jax.config import environment, help
from nanochat_jax.config.errors import friendly_errors
from nanochat_jax.config.resolve import SECTIONS, resolve
from nanochat_jax.config.values import fields
from scripts import chat_web, checkpoints, convert, data, report, speedrun, train
from scripts import eval as scores

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--depth abc", "--depth is 'abc'; expected a whole number"),
        ("--depth", "--depth has no value; expected a whole number"),
        ("--matrix-lr x", "--matrix-lr is 'x'; expected a number"),
        ("--matrix-lr -3", "--matrix-lr is -3.0; set it to 0 or more"),
        ("--matrix-lr nan", "--matrix-lr is nan; set it to 0 or more"),
        ("--loader foo", "--loader is 'foo'; expected one of stream, bestfit"),
        ("--device-batch-size 0", "--device-batch-size is 0; set it to 1 or more"),
        (
            "--resume-from-step -7",
            "--resume-from-step is -7; set it to 0 or more, or to -1 for what --resume says",
        ),
        ("--num-iterations -5", "--num-iterations is -5; set it to 1 or more, or to -1 for"),
        ("--target-param-data-ratio 0", "--target-param-data-ratio is 0.0; set it to more than 0"),
        ("--warmdown-ratio 1.5", "--warmdown-ratio is 1.5; set it to a number from 0 to 1"),
        ("--resume yes", "--resume takes no value; leave 'yes' out"),
        ("--depth 4 5", "--depth takes one value; got '4 5'"),
        ("stray", "'stray' is no flag; --help lists the flags"),
        ("-z", "'-z' is no flag; --help lists the flags"),
        ("--mesh 0", "mesh is '0'; expected a number of devices such as 8"),
        ("--config d2", "no config file d2; found cpu, "),
        ("--config .", "cannot read the config file ."),
    ],
)
def test_a_wrong_flag_is_told_in_one_line(argv, said, base_dir, capsys):
    refused(train, ["base", *argv.split()], said, capsys)


@pytest.mark.parametrize(
    ("program", "argv", "said"),
    [
        (train, "bass", "--stage is 'bass'; did you mean 'base'?"),
        (train, "", "no stage given; type python -m scripts.train --stage tokenizer|base|mid"),
        (train, "tokenizer --vocab-size 0", "--vocab-size is 0; set it to 1 or more"),
        (train, "rl --top-k=-2", "--top-k is -2; set it to 1 or more, or to 0 for all tokens"),
        (scores, "-x 0", "--max-problems is 0; set it to 1 or more, or to -1 for all"),
        (scores, "-i foo", "-i is 'foo'; expected one of tokenizer, base, mid, sft, rl"),
        (scores, "--temperature=-1", "--temperature is -1.0; set it to 0 (greedy) or more"),
        (data, "lst", "unknown command 'lst'; did you mean 'list'?"),
        (data, "download -n 0", "--num-files is 0; set it to 1 or more, or to -1 for all"),
        (data, "download -n x", "-n is 'x'; expected a whole number"),
        (data, "--num-files 3", "no command before '--num-files'; known: add, clean, download"),
        (checkpoints, "--yes", "no command before '--yes'; known: list, prune, restore"),
        (data, "download --mx", "unknown flag --mx; did you mean --mix?"),
        (convert, "import", "missing: --dir"),
        (convert, "compare one", "missing: "),
        (report, "--prise 3", "unknown flag --prise; did you mean --price?"),
        (report, "--price x", "--price is 'x'; expected a number"),
        (report, "generat", "invalid choice 'generat'"),
        (speedrun, "--depht 3", "unknown flag --depht; did you mean --depth?"),
        (
            speedrun,
            "--depth 3",
            "unknown flag --depth here; it is one of base: write depth = ... under [base]",
        ),
        (chat_web, "--port x", "--port is 'x'; expected a whole number"),
    ],
)
def test_every_program_refuses_in_the_same_style(program, argv, said, base_dir, capsys):
    refused(program, argv.split(), said, capsys)


def refused(program, argv, said, capsys):
    with pytest.raises(SystemExit) as left:
        program.main(argv)
    told = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and len(told) == 1
    assert told[0].startswith(f"error: {said}")


@pytest.mark.parametrize("where", ["file", "file/below", "nowhere"])
def test_a_base_directory_that_cannot_be_made_is_named_with_the_variable(
    where, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    root = Path("/proc/nowhere") if where == "nowhere" else tmp_path / where
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(root))
    said = f"the base directory {root}, where data and models are kept, cannot be used"
    refused(train, ["tokenizer"], said, capsys)
    refused(data, ["add", "README.md"], said, capsys)


def test_a_bare_dash_is_taken_and_the_stage_may_be_the_first_word(capsys):
    for argv in (["base", "--", "--help"], ["--", "--stage=base", "-h"], ["--stage", "base", "-h"]):
        with pytest.raises(SystemExit) as left:
            train.main(argv)
        assert left.value.code == 0
        assert capsys.readouterr().out.startswith("usage: python -m scripts.train --stage base")


def test_a_shipped_config_is_found_by_its_name(monkeypatch, tmp_path):
    shipped = str(ROOT / "configs" / "d20.toml")
    assert resolve("base", ["--config", "d20"]).config == shipped
    monkeypatch.chdir(tmp_path)
    for name in ("d20.toml", "configs/d20.toml", "configs/d20"):
        assert resolve("base", [f"--config={name}"]).config == shipped
    (tmp_path / "d20").write_text("[base]\ndepth = 3\n")  # a file of one's own comes first
    assert resolve("base", ["--config=d20"]).depth == 3


@pytest.mark.parametrize("program", [data, checkpoints, convert])
def test_the_commands_are_listed_where_help_is_asked_for_or_nothing_is(program, capsys):
    for argv, code in (
        [["--help"], 0],
        [["-h"], 0],
        [["--help-all"], 0],
        [["--", "-h"], 0],
        [[], 2],
    ):
        with pytest.raises(SystemExit) as left:
            program.main(argv)
        assert left.value.code == code and "COMMAND [flags]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "argv", "flag"),
    [
        (data, ["download"], "--num-files"),
        (convert, ["import"], "--dir"),
        (checkpoints, ["prune"], "--finished"),
        (report, [], "--price"),
    ],
)
def test_all_help_of_a_program_without_rare_flags_is_one(program, argv, flag, capsys):
    shown = []
    for asked in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as left:
            program.main([*argv, asked])
        assert left.value.code == 0
        shown.append(capsys.readouterr())
    assert flag in shown[0].out and shown[0] == shown[1]


def test_a_number_that_is_off_by_default_says_so_once():
    for cls, name, said in (
        (SECTIONS["eval"], "temperature", "0: greedy"),
        (SECTIONS["chat_cli"], "temperature", "0: the likeliest token; higher: more varied "
                                              "(default: 0.6)"),
        (SECTIONS["eval"], "num_samples", "(default: 1)"),
        (SECTIONS["base"], "weight_decay", "(default: 0.0)"),
    ):  # fmt: skip
        shown = " ".join(help.text(cls, cls(), "x", everything=True).split())
        (line,) = re.findall(rf"--{name.replace('_', '-')} [XN] (.*?)(?: -\w, --| --|$)", shown)
        assert line.endswith(said)


def test_the_help_of_training_has_a_line_for_each_stage(capsys):
    with pytest.raises(SystemExit) as left:
        train.main(["--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert all(
        re.search(rf"^  {s} +[A-Z]", said, re.M) for s in "tokenizer base mid sft rl".split()
    )


@pytest.mark.parametrize("section", SECTIONS)
def test_every_flag_has_a_text_and_a_group_and_the_rare_ones_wait(section, capsys):
    cls = SECTIONS[section]
    shown = {}
    for asked in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as left:
            resolve(section, [asked])
        assert left.value.code == 0
        shown[asked] = capsys.readouterr().out
    flags = {f"--{name.replace('_', '-')}" for name in fields(cls)}
    told = lambda text: {f.replace("--no-", "--") for f in re.findall(r"(--[\w-]+)", text)}
    assert flags <= told(shown["--help-all"])
    assert len(shown["--help"]) < len(shown["--help-all"]) and "Other:" not in shown["--help"]
    heads = re.findall(r"^(\S.*):$", shown["--help"], re.M)
    assert "What to run" in heads or section == "tokenizer"
    assert max(map(len, shown["--help-all"].splitlines())) <= 100
    defaults = [line.count("default:") for line in re.split(r"\n  -", shown["--help-all"])]
    assert max(defaults) <= 1  # once each


def test_the_modules_that_are_asked_for_are_those_of_the_project():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = tomllib.loads(text)["project"]["dependencies"]
    asked = {re.split(r"[<>=;\[ -]", each)[0] for each in dependencies}
    assert set(environment.NEEDED) - {"nanochat_jax._rustbpe"} < asked
    assert all(importlib.util.find_spec(name) for name in environment.NEEDED)


def test_a_package_that_only_some_programs_need_is_told_where_it_is_missed(capsys):
    with pytest.raises(SystemExit) as left, friendly_errors():
        import no_such_package  # noqa: F401
    told = capsys.readouterr().err
    assert left.value.code == 2 and told.count("\n") == 1
    assert "no_such_package is not installed" in told and "make setup" in told


@pytest.mark.parametrize("program", sorted(p.stem for p in (ROOT / "scripts").glob("[a-z]*.py")))
def test_a_python_without_the_packages_is_told_what_to_type(program):
    # -S leaves site-packages out: a Python of the system, as outside of the environment.
    command = [sys.executable, "-S", "-m", f"scripts.{program}"]
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert re.match(r"error: tyro and \d+ more are not installed .*type: ", done.stderr)
    assert "make setup" in done.stderr or "source .venv/bin/activate" in done.stderr


@pytest.mark.parametrize("argv", ["train sft", "speedrun"])
def test_something_is_on_the_screen_before_jax_loads(argv, tmp_path):
    # It takes seconds; here the program ends where it would begin to.
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise SystemExit(7)")
    name, *rest = argv.split()
    env = os.environ | {"PYTHONPATH": str(tmp_path), "NANOCHAT_BASE_DIR": str(tmp_path / "base")}
    command = [sys.executable, "-m", f"scripts.{name}", *rest]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 7
    assert re.match(r"\w+: settings of \S+/configs/cpu\.toml; loading JAX \.\.\.\n", done.stderr)
