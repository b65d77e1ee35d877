"""A run that a new one moved aside is told, listed, brought back, and pruned by the rule alone."""

import json

import pytest

from nanochat_jax.checkpoint import aside, store
from scripts import checkpoints


def run(folder, *steps, final=False):
    """A run's folder as `store.steps` and `store.find` see it."""
    for step in steps:
        path = store.folder(folder, step)
        path.mkdir(parents=True)
        meta = {"step": step, "final": final and step == steps[-1]}
        (path / "meta.json").write_text(json.dumps(meta))
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "metrics.jsonl").write_text("".join(f'{{"step": {s}}}\n' for s in steps))
    return folder


@pytest.fixture
def home(base_dir):
    return base_dir / "base_checkpoints" / "d4"


def test_a_run_goes_aside_whole_and_comes_back_for_the_one_in_its_place(home, capsys):
    run(home, 2, 4, final=True)
    moved = aside.move(home)
    assert aside.found(home.parents[1], since=moved.when) == [moved]
    assert not aside.found(home.parents[1], since=moved.when + 1)
    assert moved.name == "base/d4-1" and moved.finished and not home.exists()
    run(home, 8)
    assert checkpoints.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "base/d4          step 8, not finished" in out and "steps 2, 4, finished" in out
    assert f"back with: {moved.back}" in out
    argv = moved.back.split()[3:]
    assert checkpoints.main(argv) == 0
    assert "base/d4-1 is back" in (out := capsys.readouterr().out) and "is now base/d4-2" in out
    assert store.steps(home) == [2, 4] and not (home / aside.RECORD).exists()
    assert [(a.name, a.steps, a.after) for a in aside.found(home.parents[1])] == [
        ("base/d4-2", [8], None)
    ]


def test_the_later_steps_of_a_run_come_back_with_its_metrics(home):
    run(home, 2, 4, 6, final=True)
    moved = aside.move_later(home, 2)
    assert moved.after == 2 and moved.steps == [4, 6] and store.steps(home) == [2]
    store.folder(home, 3).mkdir()
    (store.folder(home, 3) / "meta.json").write_text("{}")
    (home / "metrics.jsonl").write_text('{"step": 2}\n{"step": 3}\n')
    other = aside.restore(moved)
    assert store.steps(home) == [2, 4, 6] and other.steps == [3]
    assert '{"step": 6}' in (home / "metrics.jsonl").read_text()
    assert '{"step": 3}' in (other.path / "metrics.jsonl").read_text()
    assert aside.move_later(home, 6) is None and aside.move(home.with_name("none")) is None


def test_the_newest_three_of_a_run_stay_and_all_that_were_finished(home, capsys):
    for n in range(6):
        aside.move(run(home, 1, final=n == 0))
    aside.move(run(home.with_name("d2"), 1))
    old = home.parent / ".old"
    assert checkpoints.main(["prune"]) == 0
    assert "2 to remove (nothing was; type --yes); 5 stay" in capsys.readouterr().out
    assert len(list(old.iterdir())) == 7
    assert [a.name for a in aside.prune(home.parents[1])] == ["base/d4-3", "base/d4-2"]
    assert sorted(p.name for p in old.iterdir()) == ["d2-1", "d4-1", "d4-4", "d4-5", "d4-6"]
    # A number is not given twice while a later one is there: the order stays readable.
    assert aside.move(run(home, 1)).name == "base/d4-7"
    assert checkpoints.main(["prune", "--finished", "--yes"]) == 0
    assert sorted(p.name for p in old.iterdir()) == ["d2-1", "d4-5", "d4-6", "d4-7"]


def test_what_an_earlier_version_moved_is_known_by_what_lies_there(home):
    old = home.parent / ".old"
    run(old / "d4-1", 5)
    run(old / "d4-2", 7, 9)
    (old / "d4-2" / "metrics.jsonl").unlink()
    assert {a.name: a.after for a in aside.found(home.parents[1])} == {
        "base/d4-1": None, "base/d4-2": 6,
    }  # fmt: skip


def test_a_name_that_is_not_there_is_told_with_the_nearest(home, capsys):
    aside.move(run(home, 1))
    with pytest.raises(SystemExit) as left:
        checkpoints.main(["restore", "base/d4"])
    assert left.value.code == 2 and "did you mean 'base/d4-1'" in capsys.readouterr().err
