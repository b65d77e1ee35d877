"""A run goes on from its last whole step; damaged ones are kept aside and never taken again."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax import locks
from nanochat_jax.checkpoint import store, whole

META = {"model_config": {}, "final": True}


@pytest.fixture
def directory(tmp_path):
    """Two steps of a run."""
    for step in (2, 4):
        tree = {"a": jnp.arange(64.0) + step}
        store.save(tmp_path / "d1", step, tree, META, optimizer=tree, loader={"n": step})
    return tmp_path / "d1"


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES = {
    "flipped": flip,
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "missing": lambda file: file.unlink(),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_of_any_file_of_the_newest_step_leads_to_the_one_before(directory, how, caplog):
    newest, kept = directory / "000004", directory.with_name("kept")
    shutil.copytree(newest, kept)
    names = sorted(p.relative_to(kept) for p in kept.rglob("*") if p.is_file())
    assert len(names) > 8
    for name in names:
        if not newest.exists():
            shutil.copytree(kept, newest)
        DAMAGES[how](newest / name)
        whole.set_damaged_aside(directory)
        assert store.find(directory).step == 2, name
        # A changed manifest may name any file.
        assert name.name in caplog.text or name.name == "manifest.json"
        assert "it is kept as 000004.damaged" in caplog.text
        caplog.clear()
    assert len(list(directory.glob("000004.damaged*"))) == len(names)  # not one was thrown away
    np.testing.assert_array_equal(store.find(directory).params()["a"], np.arange(64.0) + 2)
    assert not locks.path_of(directory).exists()


def test_without_a_whole_step_nothing_is_touched_and_all_is_told(directory):
    for step in ("000002", "000004"):
        (directory / step / "meta.json").unlink()
    with pytest.raises(ValueError, match="every checkpoint in .*000004: meta.json is missing"):
        whole.set_damaged_aside(directory)
    assert {p.name for p in directory.iterdir()} == {"000002", "000004"}


def test_a_step_of_a_run_that_is_under_way_is_left_alone(directory, monkeypatch):
    flip(directory / "000004" / "meta.json")
    monkeypatch.setattr(whole, "WAIT_S", 0.0)
    with locks.held(directory), pytest.raises(ValueError, match="in use by process"):
        whole.set_damaged_aside(directory)
    assert (directory / "000004").is_dir()


def test_what_is_whole_is_read_once(directory, monkeypatch):
    whole.set_damaged_aside(directory)
    monkeypatch.setattr(store, "verify", lambda saved: pytest.fail("read again"))
    whole.verify(store.find(directory))
