"""Files and folders stand whole or not at all, wherever a writer is stopped."""

import json
import os
import pathlib
import resource
import stat
import subprocess
import sys

import pytest

from nanochat_jax import files

# Runs a writer in a process of its own that is killed as it enters the n-th system call of a kind.
KILLED = """
import os, pathlib, signal, sys
from nanochat_jax import files

writer, call, count, path = sys.argv[1], sys.argv[2], int(sys.argv[3]), pathlib.Path(sys.argv[4])
real = getattr(os, call)

def counted(*args, **options):
    global count
    count -= 1
    if count < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)

setattr(os, call, counted)
if writer == "file":
    files.write_text(path, "new")
else:
    with files.whole_folder(path) as part:
        (part / "inside").write_text("new")
"""


def killed(writer: str, call: str, count: int, path: pathlib.Path) -> bool:
    """Whether the writer was killed at call `count` (from 0) of `os.<call>`; else it finished."""
    argv = [sys.executable, "-c", KILLED, writer, call, str(count), str(path)]
    here = str(pathlib.Path(files.__file__).parents[1])
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": here}, timeout=60)
    assert done.returncode in (0, -9)
    return done.returncode == -9


def hidden(folder: pathlib.Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(("call", "count"), [("fsync", 0), ("replace", 0), ("fsync", 1)])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_whose_writer_is_killed_is_the_old_one_or_the_new(tmp_path, before, call, count):
    path = tmp_path / "file"
    if before:
        path.write_text(before)
    assert killed("file", call, count, path)
    if count:  # behind the rename
        assert path.read_text() == "new" and not hidden(tmp_path)
    else:
        assert (path.read_text() if path.exists() else None) == before
        assert all(name.endswith(files.PART) for name in hidden(tmp_path))
    assert not killed("file", call, 9, path)
    assert path.read_text() == "new"


@pytest.mark.parametrize("call_count", [("fsync", 0), ("fsync", 1), ("rename", 0), ("rename", 1)])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_folder_whose_writer_is_killed_is_found_by_the_next_reader(tmp_path, before, call_count):
    path = tmp_path / "folder"
    if before:
        path.mkdir()
        (path / "inside").write_text(before)
    was_killed = killed("folder", *call_count, path)
    assert was_killed or (before is None and call_count == ("rename", 1))  # one rename is enough
    files.recover_folder(path)
    if was_killed:
        assert ((path / "inside").read_text() if path.exists() else None) == before
    assert not killed("folder", "fsync", 99, path)
    assert (path / "inside").read_text() == "new"
    assert all(name.endswith(files.PART) for name in hidden(tmp_path))


def test_a_killed_replacement_leaves_the_old_folder_beside_the_name(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "inside").write_text("old")
    assert killed("folder", "rename", 1, path) and not path.exists()
    files.recover_folder(path)
    files.recover_folder(path)
    assert (path / "inside").read_text() == "old"


def test_a_reader_that_recovers_between_the_renames_stops_no_writer(tmp_path, monkeypatch):
    path, part, rename = tmp_path / "folder", tmp_path / "part", pathlib.Path.rename
    for folder in (path, part):
        folder.mkdir()
        (folder / "inside").write_text(folder.name)
    meddled = iter([True])

    def meddling(self, target):
        if self == part and next(meddled, False):
            files.recover_folders(tmp_path)
            assert (path / "inside").read_text() == "folder"
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", meddling)
    files.replace_folder(part, path)
    assert (path / "inside").read_text() == "part" and not hidden(tmp_path)


def test_recovery_touches_no_folder_that_stands(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / ".folder.old").mkdir()
    files.recover_folder(tmp_path / "folder")
    files.recover_folder(tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".folder.old", "folder"]


def test_an_error_inside_the_block_leaves_what_was_and_no_rest(tmp_path):
    path, folder = tmp_path / "file", tmp_path / "folder"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.whole_file(path) as file:
        file.write(b"half")
        1 / 0  # noqa: B018
    with pytest.raises(ZeroDivisionError), files.whole_folder(folder) as part:
        (part / "inside").write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_replacement_that_fails_puts_the_old_folder_back(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("old")
    with pytest.raises(FileNotFoundError):
        files.replace_folder(tmp_path / "absent", tmp_path / "folder")
    assert (tmp_path / "folder" / "inside").read_text() == "old" and not hidden(tmp_path)


def test_a_value_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    files.write_json(path, {"a": "ü"})
    with pytest.raises(TypeError):
        files.write_json(path, {"b": [1, object()]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ü"} and not hidden(tmp_path)


def test_a_disk_that_takes_no_more_is_an_error_and_leaves_the_old_file(tmp_path):
    path, limits = tmp_path / "file", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_text("old")
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (10_000, limits[1])
    )  # a write fails as on a full disk
    try:
        with pytest.raises(OSError):
            files.write_text(path, "new" * 10_000)
        with pytest.raises(OSError), files.whole_folder(tmp_path / "folder") as part:
            (part / "inside").write_text("new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_is_written_is_as_open_as_any_file_of_the_users(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "file", "text")
        with files.whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    mode = lambda name: stat.S_IMODE((tmp_path / name).stat().st_mode)
    assert (mode("file"), mode("folder")) == (0o640, 0o750)


def test_json_lines_are_one_value_a_line(tmp_path):
    values = [{"text": "a\nb\u2028ü"}, [1], "x"]
    files.write_json_lines(tmp_path / "deep" / "lines.jsonl", iter(values))
    path = tmp_path / "deep" / "lines.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == values and lines[-1] == ""
    assert files.read_json_lines(path) == values


def test_json_lines_are_read_up_to_one_that_a_kill_cut_off(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert files.read_json_lines(path) == []
    whole = '{"a": 1}\n{"a": "ü"}\n'.encode()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert files.read_json_lines(path) == [{"a": 1}, {"a": "ü"}][: (cut >= 8) + (cut >= 20)]


def test_half_a_character_does_not_stop_a_writer(tmp_path):
    files.write_text(tmp_path / "file", "a\ud83db")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "a?b"
