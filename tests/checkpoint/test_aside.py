"""A run that a new one moved aside is told, listed, brought back, and pruned by the rule alone."""

import json
import shutil

import pytest

from nanochat_jax.checkpoint import aside, manifest, store
from nanochat_jax.files import write_json
from scripts import checkpoints


def run(folder, *steps, final=False, weights="w"):
    """A run's folder as `store.steps` and `store.find` see it, each step with its manifest."""
    for step in steps:
        path = store.folder(folder, step)
        path.mkdir(parents=True)
        meta = {"step": step, "final": final and step == steps[-1]}
        (path / "meta.json").write_text(json.dumps(meta))
        (path / "params").write_text(f"{weights} {step}")
        write_json(path / manifest.NAME, manifest.entries(path))
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


def test_later_steps_come_back_to_no_other_run_than_theirs(home, capsys):
    run(home, 2, 4, 6)
    later = aside.move_later(home, 4)
    manifest.amend_meta(store.folder(home, 4), {"metrics": {"val/bpb": 1.0}})  # an evaluation's
    first = aside.move(home)
    run(home, 2, 4, 8, weights="another")
    before = {p: p.read_bytes() for p in home.parent.rglob("*") if p.is_file()}
    with pytest.raises(SystemExit) as left:
        checkpoints.main(later.back.split()[3:])
    said = capsys.readouterr().err
    assert left.value.code == 2 and "steps 2, 4 there are another's" in said
    assert f"bring that one back first ({first.back}), then this" in said
    assert before == {p: p.read_bytes() for p in home.parent.rglob("*") if p.is_file()}
    for each in (first, later):
        assert checkpoints.main(each.back.split()[3:]) == 0
    assert store.steps(home) == [2, 4, 6]
    assert (store.folder(home, 6) / "params").read_text() == "w 6"


def test_later_steps_of_a_run_that_is_gone_want_their_place_empty(home):
    run(home, 2, 4)
    later = aside.move_later(home, 2)
    shutil.rmtree(home)
    run(home, 1)
    with pytest.raises(ValueError, match=f"move {home} to another name first"):
        aside.restore(later)
    shutil.rmtree(store.folder(home, 1))
    assert aside.restore(later) is None and store.steps(home) == [4]


def test_a_folder_put_into_old_by_hand_is_nobody_s_run(home):
    run(home.parent / ".old" / "d4", 5)
    run(home.parent / ".old" / "copy-of", 5)
    assert not aside.found(home.parents[1])
    assert aside.move(run(home, 1)).name == "base/d4-1"


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


def test_runs_without_a_step_push_out_none_that_has_one(home):
    for steps in ([7], [], [], [], []):
        aside.move(run(home, *steps))
    assert [a.name for a in aside.prune(home.parents[1])] == ["base/d4-2"]
    assert aside.named(home.parents[1], "base/d4-1").steps == [7]


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
