"""Saving beside training: what was handed over is what lies on disk, and errors come back."""

import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from nanochat_jax.checkpoint import arrays, manifest, store
from nanochat_jax.checkpoint.prune import needed, prune, source_of
from nanochat_jax.checkpoint.saver import Saver
from nanochat_jax.config.saving import Keep

KEPT = {"keep": "last=1"}


def state(devices: int = 1):
    mesh = jax.make_mesh((devices,), ("data",), (jax.sharding.AxisType.Auto,))
    place = lambda *axes: jax.NamedSharding(mesh, jax.P(*axes))
    return {
        "wte": {"embedding": jax.device_put(jnp.arange(8192.0).reshape(64, 128), place("data"))},
        "h_0": {"c_q": {"kernel": jax.device_put(jnp.ones((8, 64)), place(None, "data"))}},
        "scale": jax.device_put(jnp.arange(6, dtype=jnp.bfloat16), place()),
        "count": jax.device_put(jnp.int32(7), place()),
    }


def save(saver, step, tree, **meta):
    meta = {"model_config": {}, "config": KEPT, "metrics": {}} | meta
    return saver.save(step, tree, meta, optimizer={"m": tree}, loader={"n": step})


def equal(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


@pytest.mark.parametrize("devices", [1, 4])
def test_arrays_may_be_donated_as_soon_as_a_save_has_begun(tmp_path, devices):
    tree = state(devices)
    before = jax.tree.map(lambda a: np.array(a, copy=True), tree)
    step = jax.jit(lambda t: jax.tree.map(lambda a: a * 0 + 1, t), donate_argnums=0)
    with Saver(tmp_path, tmp_path) as saver:
        save(saver, 2, tree)
        for _ in range(5):
            tree = step(tree)
        jax.block_until_ready(tree)
    saved = store.find(tmp_path)
    store.verify(saved)
    equal(saved.params(), before)
    equal(saved.optimizer()["m"], before)
    assert saved.loader == {"n": 2}


@pytest.mark.parametrize("devices", [1, 4])
def test_digests_are_of_the_memory_that_is_written_and_no_array_is_read_again(
    tmp_path, monkeypatch, devices
):
    read: list[str] = []
    entry = manifest.entry
    monkeypatch.setattr(manifest, "entry", lambda f: read.append(f.name) or entry(f))
    with Saver(tmp_path, tmp_path) as saver:
        path = save(saver, 2, state(devices))
    monkeypatch.undo()
    listed = json.loads((path / store.MANIFEST).read_text())
    assert {k: tuple(v) for k, v in listed.items()} == {
        k: v for k, v in manifest.entries(path).items() if k != store.MANIFEST
    }
    pieces = [name for name in listed if name.startswith("params/wte.embedding/")]
    assert sorted(map(lambda n: n.rsplit("/")[-1], pieces)) == [
        ".zarray", *(f"{n}.0" for n in range(devices)),
    ]  # fmt: skip
    assert not [name for name in read if name[0].isdigit()]


def test_host_arrays_are_digested_as_they_are_written_too(tmp_path):
    tree = {"a": np.arange(12.0).reshape(3, 4), "t": np.arange(6.0).reshape(2, 3).T, "n": 3}
    path = store.save(tmp_path, 1, tree, {"model_config": {}})
    writing = arrays.Writing(tmp_path / "again", {"params": tree})
    writing.wait()
    assert {"params/a/0.0", "params/t/0.0"} <= writing.entries(tmp_path / "again").keys()
    writing.close()
    store.verify(store.find(tmp_path))
    equal(store.Saved(path, {}).params(), tree)


def test_a_file_that_is_not_plain_bytes_is_read_for_its_digest(tmp_path):
    """Should a later Orbax lay arrays out in another way, a checkpoint must not fail its check."""
    writing = arrays.Writing(tmp_path / "part", {"params": state()})
    writing.wait()
    layout = tmp_path / "part" / "params" / "wte.embedding" / ".zarray"
    layout.write_text(layout.read_text().replace('"order":"C"', '"order":"F"'))
    known = writing.entries(tmp_path / "part")
    writing.close()
    assert "params/wte.embedding/0.0" not in known and "params/scale/0" in known
    assert manifest.entries(tmp_path / "part", known) == manifest.entries(tmp_path / "part")


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("axes", [("data",), (None, "data"), ()])
def test_an_array_comes_back_on_other_devices_cut_another_way(tmp_path, devices, axes, monkeypatch):
    """Straight from the files; Orbax reads the same from them."""
    tree = state(4)
    store.save(tmp_path, 1, tree, {})
    mesh = jax.make_mesh((devices,), ("data",), (jax.sharding.AxisType.Auto,))
    place = lambda a: jax.NamedSharding(mesh, jax.P(*axes[: a.ndim]) if a.ndim > 1 else jax.P())
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place(a)), tree)
    back = store.find(tmp_path).params(like)
    monkeypatch.setattr(arrays.plain, "restore", lambda *_: None)
    for read in (back, store.find(tmp_path).params(like)):
        equal(read, tree)
        assert jax.tree.map(lambda a: a.sharding, read) == jax.tree.map(lambda a: a.sharding, like)


def test_an_array_of_another_shape_is_refused_and_of_another_type_is_cast(tmp_path):
    store.save(tmp_path, 1, {"a": jnp.ones((4, 2))}, {})
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = lambda *shape: {"a": jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)}
    assert store.find(tmp_path).params(like(4, 2))["a"].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="shape"):
        store.find(tmp_path).params(like(2, 2))


def test_a_checkpoint_of_the_format_before_is_read_as_it_was(tmp_path):
    tree, path = state(4), tmp_path / "000003"
    for name in ("params", "optimizer"):
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False)) as writer:
            writer.save(path / name, tree)
    (path / "meta.json").write_text('{"model_config": {}, "step": 3}')
    (path / store.MANIFEST).write_text(json.dumps(manifest.entries(path)))
    saved = store.find(tmp_path)
    store.verify(saved)
    equal(saved.params(), tree)
    places = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree
    )
    equal(saved.optimizer(places), tree)


def test_what_goes_wrong_beside_the_training_is_raised_at_the_next_call(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Saver(tmp_path, tmp_path) as saver:
        save(saver, 1, state())
        saver.wait()
        with monkeypatch.context() as patch:
            patch.setattr(store, "write_json", full)
            save(saver, 2, state())
            with pytest.raises(OSError, match="disk full .* earlier ones are untouched"):
                save(saver, 3, state())
            save(saver, 4, state())
            with pytest.raises(OSError, match="disk full"):
                saver.wait()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000001"]


def test_an_error_of_the_run_is_not_hidden_by_one_of_its_last_save(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_json", full)
    with pytest.raises(ZeroDivisionError), Saver(tmp_path, tmp_path) as saver:
        save(saver, 1, state())
        raise ZeroDivisionError
    assert "saving failed too" in caplog.text and "disk full" in caplog.text


def test_scores_come_to_a_step_that_is_still_being_saved(tmp_path, monkeypatch):
    go, replace = threading.Event(), store.replace_folder
    monkeypatch.setattr(store, "replace_folder", lambda a, b: go.wait() and replace(a, b))
    with Saver(tmp_path, tmp_path) as saver:
        path = save(saver, 1, state())
        saver.amend(path, {"metrics": {"val/bpb": 2.0}})
        assert store.steps(tmp_path) == []
        go.set()
    store.verify(store.find(tmp_path))
    assert store.find(tmp_path).meta["metrics"] == {"val/bpb": 2.0}


def test_a_run_keeps_what_it_was_told_to_and_whole_steps_alone(tmp_path):
    run = tmp_path / "base_checkpoints" / "d2"
    scores = {2: 3.0, 4: 1.0, 6: 2.0, 8: 4.0}
    with Saver(run, tmp_path, Keep.of("last=2,best=1")) as saver:
        for step, bpb in scores.items():
            save(saver, step, state(), metrics={"val/bpb": bpb})
    assert store.steps(run) == [4, 6, 8]
    assert sorted(p.name for p in run.iterdir()) == ["000004", "000006", "000008"]


def write_meta(path, **meta):
    path.mkdir(parents=True)
    (path / "meta.json").write_text(json.dumps(meta))


def test_a_step_that_a_later_stage_was_born_from_stays(tmp_path):
    run, child = tmp_path / "base_checkpoints" / "d2", tmp_path / "chatsft_checkpoints"
    for step in (1, 2, 3, 4, 5, 6):
        write_meta(run / f"{step:06d}", config=KEPT)
    write_meta(child / "d2" / "000009", source={"path": "base_checkpoints/d2/000002"})
    write_meta(child / ".old" / "d2-1" / "000009", source={"path": str(run / "000003")})
    write_meta(child / "d3" / "000009", source={"path": "base_checkpoints/d3/000004"})
    assert needed(run, tmp_path) == {2, 3}
    assert prune(run, Keep.of("last=1"), tmp_path, newest=6) == [1, 4, 5]
    assert store.steps(run) == [2, 3, 6]


def test_a_step_that_a_later_stage_was_born_from_stays_where_its_run_was_renamed(tmp_path):
    runs = tmp_path / "base_checkpoints"
    with Saver(runs / "d2", tmp_path, Keep.of("all")) as saver:
        for step in (2, 4, 6):
            save(saver, step, state() | {"scale": jnp.full(6, step)})
    source = source_of(tmp_path, store.find(runs / "d2", 4))
    write_meta(tmp_path / "chatsft_checkpoints" / "d2" / "000009", source=source)
    (runs / "d2").rename(runs / "other")
    assert needed(runs / "other", tmp_path) == {4}


def test_the_step_just_saved_stays_whatever_lies_beyond_it(tmp_path):
    for step in (2, 4, 8, 9):
        write_meta(tmp_path / f"{step:06d}", config=KEPT)
    assert prune(tmp_path, Keep.of("last=1"), tmp_path, newest=4) == [2]
    assert store.steps(tmp_path) == [4, 8, 9]


def test_imports_and_steps_from_before_there_was_pruning_stay(tmp_path):
    write_meta(tmp_path / "000001", config={"depth": 2})
    write_meta(tmp_path / "000002", config=KEPT, imported={"step": 2})
    write_meta(tmp_path / "000003", config=KEPT)
    (tmp_path / "000004").mkdir()
    (tmp_path / "000004" / "meta.json").write_text('{"torn')
    write_meta(tmp_path / "000005", config=KEPT)
    assert prune(tmp_path, Keep.of("last=1"), tmp_path, newest=5) == [3]
