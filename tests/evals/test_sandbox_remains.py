"""What programs leave in their folder, or tell their keeper, ends no evaluation and is gone.

`pytest -s tests/evals/test_sandbox_remains.py` prints lines for the table of attacks.
"""

import os
import pathlib
import tempfile
import textwrap
import time

import pytest

from nanochat_jax.evals import sandbox
from nanochat_jax.evals.jail.remove import remove
from tests import needs

# Without namespaces the folder is one of ours, not a file system that ends with the program.
SETS = ((), ("landlock", "seccomp"), ("namespaces", "seccomp"))
# (what, program): each works without `os`' functions that the sandbox takes away.
REMAINS = {
    "a link to the root": 'posix.symlink("/", "x")',
    "links to folders, files, nothing, itself and up": """
        for i, to in enumerate(["/etc", "/etc/passwd", "/nowhere", "l4", "..", ".", "x" * 300]):
            posix.symlink(to, f"l{i}")
        posix.mkdir("d")
        posix.symlink("../..", "d/up")
        posix.link("l0", "hard") """,
    "names that are no text": r"""
        for name in [b"\xff\xfe", b"\n", b"\x1b[2J", b"-rf", b" ", b"*", b"0", b"\xed\xa0\x80"]:
            posix.mkdir(name)
            posix.mkdir(name + b"/" + b"n" * 255)
            posix.symlink(b"/", name + b"/l\xff") """,
    "folders that nobody may enter, read or write": """
        for mode in (0, 0o100, 0o200, 0o400, 0o500, 0o1777, 0o7000):
            posix.mkdir(f"m{mode}")
            posix.mkdir(f"m{mode}/inner")
            open(f"m{mode}/inner/file", "w").close()
            posix.chmod(f"m{mode}/inner/file", 0)
            posix.chmod(f"m{mode}/inner", 0)
            posix.chmod(f"m{mode}", mode)
        posix.chmod(".", 0) """,
    "a sparse file, as large as it may be": """
        with open("s", "wb") as file:
            posix.ftruncate(file.fileno(), 16 << 20) """,
    "a tree 1100 deep": """
        for _ in range(1100):  # than Python recurses, and than a path is long
            posix.mkdir("deeper")
            posix.chdir("deeper")
        posix.symlink("/", "x") """,
    "1000 files": """
        for i in range(1000):
            posix.close(posix.open(str(i), posix.O_CREAT, 0)) """,
    "a pipe": 'posix.mkfifo("pipe")',
}


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    """The folder for temporary files, which no other test uses here; empty at the end."""
    needs.linux("what holds these programs")
    with tempfile.TemporaryDirectory(prefix="remains-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield pathlib.Path(folder)
        assert not [*pathlib.Path(folder).iterdir()]


@pytest.fixture(params=SETS, ids=lambda layers: "+".join(layers) or "none")
def layers(request):
    """Sets of layers; those that this kernel does not give are skipped."""
    refused = [name for name in request.param if sandbox.try_layers((name,)).error]
    if refused:
        pytest.skip(f"not on this machine: {', '.join(refused)}")
    return request.param


@pytest.mark.parametrize("what", REMAINS)
def test_nothing_is_left_of_what_a_program_makes_and_nothing_else_is_touched(
    layers, what, folder, caplog
):
    before = {path: os.stat(path).st_mode for path in ("/", "/etc", "/etc/passwd", "/tmp")}
    code = "import posix\ntry:\n" + textwrap.indent(textwrap.dedent(REMAINS[what]), "    ")
    code += "\nexcept OSError as error:\n    print(error)\nprint('made')"
    started = time.monotonic()
    result = sandbox.run_python(code, layers=layers, timeout_s=20)
    took = time.monotonic() - started
    print(f"| {what} | {' + '.join(layers) or 'none'} | {result.error or 'deleted'} | {took:.2f} |")
    assert result.success and result.stdout.endswith("made\n"), result
    assert {path: os.stat(path).st_mode for path in before} == before
    assert not caplog.records


def test_a_link_in_the_place_of_the_folder_itself_is_not_followed(folder):
    precious = folder / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (folder / "work").symlink_to(precious)
    remove(str(folder / "work"))
    assert (precious / "file").exists() and not (folder / "work").is_symlink()
    remove(str(precious))
    remove(str(folder / "gone"))


def test_what_cannot_be_deleted_is_told_and_ends_nothing(folder, monkeypatch, caplog):
    work = folder / "work"
    work.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", lambda _: 1 / 0)
        remove(str(work))
    assert "could not be deleted" in caplog.text
    for left in folder.iterdir():
        left.rmdir()


@pytest.mark.parametrize(
    "lie",
    [
        '{"error": "' + "é" * 30_000 + '"}',  # longer than the pipe that the keeper answers by
        '{"error": "\\ud800", "memory": {"a": 1}, "exit": [1]}',
        '{"error": 5}',
        "[" * 60_000,
        '{"proved": true}',
        "\x00\xff not json",
    ],
)
def test_what_a_program_writes_to_its_keeper_itself_is_at_most_its_failure(layers, lie):
    code = f"""
import posix
for fd in range(3, 64):
    try:
        posix.write(fd, {lie!r}.encode())
    except OSError:
        pass
posix._exit(0)
"""
    result = sandbox.run_python(code, layers=layers, rules="classic")
    assert not result.success and result.error


@pytest.mark.parametrize("code", ["\x00", "\ud800", "(" * 100_000, "x = " + "9" * 50_000, "\r\x0c"])
def test_text_that_is_no_program_is_a_result_too(code):
    assert isinstance(sandbox.execute(code + "\ndef check(f):\n    pass\ncheck(print)"), bool)
