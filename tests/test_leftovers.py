"""What killed programs leave is found, measured, and removed when asked; nothing else is."""

import os
import pathlib
import time

import pytest

from nanochat_jax import leftovers
from nanochat_jax.files import replace_folder, whole_folder
from scripts import data


class Killed(BaseException):
    pass


def write(path: pathlib.Path, size: int = 10, age_s: float = 7200) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (then := time.time() - age_s, then))
    return path


@pytest.fixture
def disk(base_dir):
    """A base directory with a run in use and one leftover of each kind."""
    run = base_dir / "base_checkpoints" / "d2"
    write(run / "000004" / "params" / "w" / "0", 500)
    write(run / "000004" / "meta.json")
    write(run / ".000006.part" / "params" / "w" / "0", 400)
    write(run / ".000008.part.orbax-checkpoint-tmp" / "params" / "w" / "0", 300)
    write(run / "000010.damaged" / "meta.json", 20)
    write(run / ".000004.old" / "meta.json", 200)
    write(base_dir / "base_checkpoints" / ".old" / "d2-1" / "000009" / "meta.json", 900)
    write(base_dir / "base_data" / ".shard.parquet.1234abcd.part", 100)
    write(base_dir / "eval" / "base_d2_000002" / "MMLU.jsonl", 50)
    write(base_dir / "eval" / "base_d2_000004" / "MMLU.jsonl", 50)
    return base_dir


def run(capsys, *argv: str) -> str:
    assert data.main(["clean", *argv]) == 0
    return capsys.readouterr().out


def test_what_is_left_over_is_shown_with_sizes_and_nothing_is_removed(disk, capsys):
    before = sorted(disk.rglob("*"))
    out = run(capsys)
    assert "1 kB to remove (nothing was; type --yes)\n" in out
    assert "earlier runs that were moved aside: python -m scripts.checkpoints list" in out
    shown = [line for line in out.splitlines() if line.startswith("  ")]
    assert len(shown) == 6 and "d2-1" not in out
    assert sorted(disk.rglob("*")) == before


def test_it_is_removed_when_asked_and_whole_runs_are_left_to_their_own_rule(disk, capsys):
    assert "1 kB removed\n" in run(capsys, "--yes")
    left = [p.relative_to(disk).as_posix() for p in sorted(disk.rglob("*")) if p.is_file()]
    assert left == [
        "base_checkpoints/.old/d2-1/000009/meta.json", "base_checkpoints/d2/000004/meta.json",
        "base_checkpoints/d2/000004/params/w/0", "eval/base_d2_000004/MMLU.jsonl",
    ]  # fmt: skip
    assert "0 bytes to remove" in run(capsys)


def test_what_was_written_to_of_late_may_be_at_work_and_stays(base_dir, capsys):
    part = write(base_dir / "base_data" / ".a.parquet.00.part", age_s=60)
    assert "stays: written to within the last hour" in run(capsys, "--yes")
    assert part.exists()


def test_a_folder_that_waits_to_be_put_back_is_no_leftover(base_dir, capsys):
    write(base_dir / "base_checkpoints" / "d2" / ".000004.old" / "meta.json")
    assert "0 bytes removed" in run(capsys, "--yes")
    assert (base_dir / "base_checkpoints" / "d2" / ".000004.old").exists()


def test_an_export_that_was_killed_is_found_where_it_was_to_go(base_dir, tmp_path, capsys):
    out = tmp_path / "exports"
    part = out / ".mine.00ff.part"
    write(part / "model.safetensors", 3_000_000)
    write(out / "other" / "model.safetensors", 100)
    assert "3 MB to remove" in run(capsys, str(out))
    run(capsys, str(out), "--yes")
    assert not part.exists() and (out / "other" / "model.safetensors").exists()


def test_the_names_are_those_that_writers_use(tmp_path, monkeypatch):
    """A writer killed at its rename leaves what is found here."""

    def killed(part, path):
        raise Killed

    monkeypatch.setattr("nanochat_jax.files.replace_folder", killed)
    monkeypatch.setattr("nanochat_jax.files.shutil.rmtree", lambda *a, **k: None)
    with pytest.raises(Killed), whole_folder(tmp_path / "out") as part:
        write(part / "a")
    monkeypatch.undo()
    (found,) = leftovers.find(tmp_path)
    assert found.kind == "half-written" and found.size == 10
    write(tmp_path / "out" / "a")
    monkeypatch.setattr("nanochat_jax.files.shutil.rmtree", lambda *a, **k: None)
    replace_folder(found.path, tmp_path / "out")
    monkeypatch.undo()
    (found,) = leftovers.find(tmp_path)
    assert found.kind == "replaced"
