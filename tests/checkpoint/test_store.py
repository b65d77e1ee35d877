"""A checkpoint is whole or it does not exist; what comes back is what was saved."""

import contextlib
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.checkpoint import manifest, store


@pytest.fixture
def tree():
    return {
        "wte": {"embedding": jnp.arange(12, dtype=jnp.bfloat16).reshape(4, 3)},
        "h_0": {"attn": {"c_q": {"kernel": jnp.linspace(0, 1, 6).reshape(2, 3)}}},
        "step": jnp.int32(7),
    }


def save(path, tree, step=3, **kw):
    return store.save(path, step, tree, {"model_config": {}, "final": True}, **kw)


def test_what_comes_back_is_what_was_saved_bit_for_bit(tmp_path, tree):
    save(tmp_path, tree, optimizer={"m": tree["wte"]}, loader={"next": 5})
    saved = store.find(tmp_path)
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)
    for target in (None, like):
        back = saved.params(target)
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), tree, back
        )
        assert jax.tree.map(lambda a: a.dtype, back) == jax.tree.map(lambda a: a.dtype, tree)
    assert saved.loader == {"next": 5} and saved.step == 3 and saved.has_optimizer


def test_a_model_is_told_from_others_by_tag_step_and_its_parameters(tmp_path, tree):
    identity = lambda tag: store.find(tmp_path / tag).identity
    save(tmp_path / "d2", tree)
    first = identity("d2")
    assert (first["checkpoint tag"], first["checkpoint step"]) == ("d2", 3)
    manifest.amend_meta(tmp_path / "d2" / "000003", {"metrics": {"val/bpb": 1.0}})
    assert identity("d2") == first  # the same model, with a score
    save(tmp_path / "d2", tree | {"step": jnp.int32(8)})
    assert identity("d2")["checkpoint digest"] != first["checkpoint digest"]
    save(tmp_path / "d3", tree)
    assert identity("d3")["checkpoint tag"] == "d3"


def test_the_last_step_is_found_unless_another_is_named(tmp_path, tree):
    for step in (2, 10):
        save(tmp_path, tree, step)
    assert store.steps(tmp_path) == [2, 10]
    assert store.find(tmp_path).step == 10
    assert store.find(tmp_path, 2).step == 2
    assert store.find(tmp_path / "000002").step == 2


def test_a_missing_step_lists_those_there_are(tmp_path, tree):
    save(tmp_path, tree)
    with pytest.raises(FileNotFoundError, match="steps found: 3"):
        store.find(tmp_path, 4)
    with pytest.raises(FileNotFoundError, match="none"):
        store.find(tmp_path / "nowhere")


def test_a_half_written_checkpoint_is_not_one(tmp_path, tree):
    path = save(tmp_path, tree, 5)
    save(tmp_path, tree, 9)
    shutil.move(tmp_path / "000009", tmp_path / ".000009.part")
    assert store.find(tmp_path).path == path
    save(tmp_path, tree, 9)
    assert store.find(tmp_path).step == 9 and not (tmp_path / ".000009.part").exists()


def test_saving_a_step_again_replaces_it(tmp_path, tree):
    save(tmp_path, tree)
    save(tmp_path, {"a": jnp.ones(3)})
    assert list(store.find(tmp_path).params()) == ["a"]


def test_a_step_whose_replacement_was_killed_halfway_is_still_there(tmp_path, tree):
    save(tmp_path, tree).rename(tmp_path / ".000003.old")
    assert store.steps(tmp_path) == [3] and store.find(tmp_path).step == 3


def test_a_flipped_byte_in_any_file_is_found(tmp_path, tree):
    path = save(tmp_path, tree, loader={"next": 1})
    store.verify(store.find(tmp_path))
    files = [
        p for p in path.rglob("*") if p.is_file() and p.name != store.MANIFEST and p.stat().st_size
    ]
    assert len(files) > 3
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(ValueError, match="damaged"):
            saved = store.Saved(path, {})
            store.verify(saved)
        file.write_bytes(whole)
    store.verify(store.find(tmp_path))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_scores_are_added_to_meta_and_a_kill_at_any_write_leaves_a_good_step(
    tmp_path, tree, monkeypatch, writes
):
    path, left = save(tmp_path, tree), [writes]
    replace = pathlib.Path.replace

    def dying(part, target):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return replace(part, target)

    monkeypatch.setattr(pathlib.Path, "replace", dying)
    with pytest.raises(Killed) if writes < 3 else contextlib.nullcontext():
        manifest.amend_meta(path, {"metrics": {"val/bpb": 1.0}})
    monkeypatch.undo()
    store.verify(store.find(tmp_path))
    assert ("metrics" in store.find(tmp_path).meta) == (writes >= 2)
    manifest.amend_meta(path, {"metrics": {"val/bpb": 0.5}})
    saved = store.find(tmp_path)
    store.verify(saved)
    assert saved.meta["metrics"] == {"val/bpb": 0.5} and saved.meta["final"]


def test_a_damaged_meta_is_not_made_good_by_adding_to_it(tmp_path, tree):
    path = save(tmp_path, tree)
    (path / "meta.json").write_text('{"step": 4}')
    with pytest.raises(ValueError, match="was changed"):
        manifest.amend_meta(path, {"metrics": {}})
    with pytest.raises(ValueError, match="damaged: meta.json"):
        store.verify(store.Saved(path, {}))


def test_damaged_meta_is_named(tmp_path, tree):
    path = save(tmp_path, tree)
    (path / "meta.json").write_text('{"step": ')
    with pytest.raises(ValueError, match="meta.json is damaged"):
        store.find(tmp_path)


def test_a_full_disk_leaves_nothing_half_written_and_says_so(tmp_path, tree, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    save(tmp_path, tree, 1)
    monkeypatch.setattr(store, "write_json", full)
    with pytest.raises(OSError, match="disk full .* earlier ones are untouched"):
        save(tmp_path, tree, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000001"]


def test_arrays_split_over_devices_come_back_on_other_devices(tmp_path):
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    whole = jnp.arange(64.0).reshape(8, 8)
    save(tmp_path, {"a": jax.device_put(whole, split)})
    one = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    back = store.find(tmp_path).params(
        {"a": jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=one)}
    )
    np.testing.assert_array_equal(back["a"], whole)
    assert back["a"].devices() == {jax.devices()[1]}


def test_meta_is_plain_json(tmp_path, tree):
    path = save(tmp_path, tree)
    assert json.loads((path / "meta.json").read_text()) == {
        "model_config": {},
        "final": True,
        "step": 3,
    }
