"""A disk that is full at any write of a save costs that step alone."""

import errno
import resource

import jax.numpy as jnp
import pytest

from nanochat_jax.checkpoint import store
from tests.kills.deaths import Clockwork

TREE = {"a": jnp.arange(4096.0), "b": jnp.ones((3, 5))}


def save(directory, step):
    meta = {"model_config": {}, "final": False}
    store.save(directory, step, TREE, meta, optimizer=TREE, loader={"n": step})


def fails(directory):
    """Whether the save of step 4 fails; the one before it must be there then, and all be whole."""
    try:
        save(directory, 4)
    except Exception as error:
        assert not isinstance(error, FileNotFoundError), error
        assert 2 in store.steps(directory)
        for step in store.steps(directory):  # 4 has its name before the folder is synced
            store.verify(store.find(directory, step))
        return True
    return False


@pytest.fixture
def directory(tmp_path):
    save(tmp_path / "d1", 2)
    return tmp_path / "d1"


def test_no_file_of_a_step_can_be_too_large_to_be_written(directory):
    """Each size in turn is more than the system grants: TensorStore's own files too."""
    sizes = {p.stat().st_size for p in (directory / "000002").rglob("*") if p.is_file()}
    assert len(sizes) > 6
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in sorted(sizes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, limits[1]))
        try:
            assert fails(directory), size
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    save(directory, 4)
    store.verify(store.find(directory, 4))


@pytest.mark.slow
def test_a_disk_that_fills_in_the_middle_of_a_file_leaves_no_half_a_step(directory):
    """Half of each piece that Python writes is there, and then there is no room."""
    failed = 0
    for at in range(1, 200):
        clockwork = Clockwork(directory, lambda *now, want=("write", at): full(now == want))
        with clockwork.wound():
            failed += fails(directory)
        if clockwork.counts["write"] < at:  # a save has fewer of them, and was not disturbed
            break
        for folder in directory.glob("000004"):
            folder.rename(directory.with_name(f"{at}"))
    assert failed >= 3  # what stands beside the arrays, and the manifest


def full(now):
    if now:
        raise OSError(errno.ENOSPC, "No space left on device")
