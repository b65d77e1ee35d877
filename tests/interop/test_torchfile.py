"""What is saved comes back bit for bit; what is not a state dict, or not whole, is refused."""

import gc
import json
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax.interop import stored_zip, torchfile
from nanochat_jax.interop.pickles import plain
from nanochat_jax.interop.stored_zip import ALIGNMENT
from tests.golden.conftest import files, load_json
from tests.interop.torch_made import (
    ARRAYS,
    TREES,
    call,
    numbers,
    read_over,
    same,
    storage,
    tensor,
    write,
)

TREE = {
    "w": np.arange(48, dtype=np.float32).reshape(6, 8),
    "half": np.arange(5).astype(ml_dtypes.bfloat16),
    "groups": [{"lr": 0.02, "betas": (0.8, 0.95), "params": [0, 1], "fused": None}],
    "step": 3,
}


# ---- round trips


@given(tree=TREES)
def test_what_is_saved_comes_back_bit_for_bit(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("torchfile") / "tree.pt"
    torchfile.save(path, tree)
    same(torchfile.load(path), tree)


@given(array=ARRAYS.filter(lambda a: a.ndim > 1), data=st.data())
def test_a_view_is_saved_as_the_array_it_shows(tmp_path_factory, array, data):
    path = tmp_path_factory.mktemp("torchfile") / "view.pt"
    view = array.transpose(data.draw(st.permutations(range(array.ndim))))[::2]
    torchfile.save(path, view)
    same(torchfile.load(path), np.ascontiguousarray(view))


def test_the_same_array_twice_is_stored_once_and_still_shared(tmp_path):
    torchfile.save(tmp_path / "a.pt", {"a": TREE["w"], "b": TREE["w"], "c": TREE["w"].copy()})
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert sum("/data/" in name for name in archive.namelist()) == 2
    back = torchfile.load(tmp_path / "a.pt")
    assert np.shares_memory(back["a"], back["b"]) and not np.shares_memory(back["a"], back["c"])


def test_every_member_begins_at_a_multiple_of_the_alignment(tmp_path):
    torchfile.save(tmp_path / "a.pt", [np.ones(n, np.uint8) for n in range(150)])
    raw = (tmp_path / "a.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            name, extra = struct.unpack_from("<HH", raw, info.header_offset + 26)
            assert (info.header_offset + 30 + name + extra) % ALIGNMENT == 0, info.filename


def test_sizes_offsets_and_counts_beyond_32_bits_are_written_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_zip, "LONG", 500)  # as if four gigabytes were that few
    monkeypatch.setattr(stored_zip, "MANY", 3)
    arrays = [np.full(n, n % 100, np.uint8) for n in (0, 1, 499, 500, 501, 3000)]
    torchfile.save(tmp_path / "a.pt", arrays)
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None and len(archive.namelist()) == len(arrays) + 3
    same(torchfile.load(tmp_path / "a.pt"), arrays)


def test_the_same_tree_gives_the_same_bytes(tmp_path):
    for name in "ab":
        torchfile.save(tmp_path / name, TREE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_arrays_are_views_of_the_file_that_cannot_be_written(tmp_path):
    torchfile.save(tmp_path / "a.pt", TREE)
    array = torchfile.load(tmp_path / "a.pt")["w"]
    assert not array.flags.owndata and not array.flags.writeable
    with pytest.raises(ValueError):
        array[0] = 1


def test_a_tree_taken_entry_by_entry_never_lies_in_memory_as_a_whole(tmp_path):
    def held() -> float:
        return psutil.Process().memory_info().rss / 2**20  # MiB

    count, size = 16, 4  # MiB
    arrays = {i: np.full(size * 2**20, i, np.uint8) for i in range(count)}
    torchfile.save(tmp_path / "a.pt", arrays)
    gc.collect()
    before = held()
    tree = torchfile.load(tmp_path / "a.pt")
    assert held() - before < 2 * size
    most = 0.0
    for key in list(tree):
        assert tree.pop(key).sum() == key * size * 2**20
        most = max(most, held() - before)
    assert most < 3 * size < count * size


# ---- what torch writes and we do not


@given(data=st.data())
def test_a_view_of_a_storage_is_what_its_strides_say_or_refused(tmp_path_factory, data):
    path, held = tmp_path_factory.mktemp("torchfile"), np.arange(24, dtype=np.float32)
    size = data.draw(st.lists(st.integers(0, 5), max_size=3).map(tuple))
    stride = data.draw(st.tuples(*[st.integers(0, 12) for _ in size]))
    offset = data.draw(st.integers(0, 30))
    indices = offset + sum(np.indices(size)[i] * s for i, s in enumerate(stride))
    indices = np.broadcast_to(indices, size)
    ops = tensor(storage(24), offset, size, stride)
    if indices.size and indices.max() >= 24:
        with pytest.raises(ValueError, match="reaches element"):
            read_over(path, held, ops)
    else:
        want = np.asarray(held[indices] if indices.size else np.empty(size, np.float32))
        same(read_over(path, held, ops), want)


def test_parameters_sizes_and_a_modules_notes_are_read(tmp_path):
    held = np.arange(6, dtype=np.float32)
    one = tensor(storage(6), 0, (2, 3), (3, 1))
    parameter = call("torch._utils._rebuild_parameter", one, plain(True), b"}")
    notes = b"}" + plain("_metadata") + b"}s"
    state = call("collections.OrderedDict") + plain("w") + parameter + b"s" + notes + b"b"
    same(read_over(tmp_path, held, state), {"w": held.reshape(2, 3)})
    same(read_over(tmp_path, held, call("torch.Size", numbers(2, 3))), (2, 3))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_protocol_since_2_is_read(tmp_path, protocol):
    tree = {"a": [1, 2**40, -(2**90), 0.5, None, True], "b": ((), (1,), ("x", "y", "é")), 3: {}}
    write(tmp_path / "a.pt", pickle.dumps(tree, protocol))
    same(torchfile.load(tmp_path / "a.pt"), tree)


def test_members_that_a_zip_tool_compressed_are_read_up_to_a_bound(tmp_path, monkeypatch):
    held = np.zeros(5000, np.float32)
    pickled = b"\x80\x02" + tensor(storage(5000), 0, (5000,), (1,)) + b"."
    deflated = {"compression": zipfile.ZIP_DEFLATED}
    file = write(tmp_path / "a.pt", pickled, held.tobytes(), **deflated)
    same(torchfile.load(file), held)
    monkeypatch.setattr(torchfile, "MAX_INFLATED", 10_000)
    with pytest.raises(ValueError, match="compressed"):
        torchfile.load(file)


def test_a_conjugated_or_negated_tensor_is_refused(tmp_path):
    ops = tensor(storage(1), 0, (1,), (1,), b"}" + plain("neg") + plain(True) + b"s")
    with pytest.raises(ValueError, match="in name only"):
        read_over(tmp_path, np.ones(1, np.float32), ops)


# ---- the original's own files


@pytest.mark.parametrize("path", files("checkpoint_*/**/*.pt"))
def test_the_originals_files_come_back_byte_for_byte(path, tmp_path):
    tree = torchfile.load(path)
    torchfile.save(tmp_path / "again.pt", tree)
    same(torchfile.load(tmp_path / "again.pt"), tree)


@pytest.mark.parametrize("path", files("checkpoint_*/structure.json"))
def test_the_originals_files_hold_what_their_listing_says(path):
    def described(value):
        if isinstance(value, np.ndarray):
            return f"tensor {value.shape} {value.dtype}"
        if isinstance(value, dict):
            return {str(k): described(v) for k, v in value.items()}
        return [described(v) for v in value] if isinstance(value, list | tuple) else value

    listed = load_json(path)
    (optim,) = path.parent.glob(f"base_checkpoints/*/{listed['optim_file']}")
    assert described(torchfile.load(optim)) == listed["structure"]
    name = listed["optim_file"].replace("optim", "model").split("_rank")[0]
    model = torchfile.load(optim.with_name(name.removesuffix(".pt") + ".pt"))
    assert described(model) == listed["state_dict_keys"]


# ---- damage


def test_a_file_that_breaks_off_anywhere_is_refused_by_name(tmp_path):
    torchfile.save(tmp_path / "whole.pt", TREE)
    whole = (tmp_path / "whole.pt").read_bytes()
    cut = tmp_path / "cut.pt"
    for length in [0, *range(1, 200), *range(200, len(whole), 7), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut.pt .*(copy it again|begins with b'P'$)"):
            torchfile.load(cut)


def test_a_file_that_lacks_a_piece_anywhere_is_refused_or_whole(tmp_path):
    torchfile.save(tmp_path / "whole.pt", TREE)
    whole, holed = (tmp_path / "whole.pt").read_bytes(), tmp_path / "holed.pt"
    for start in range(0, len(whole) - 1, 5):
        holed.write_bytes(whole[:start] + whole[start + 1 :])
        try:
            same(torchfile.load(holed), TREE)
        except ValueError as error:
            assert "holed.pt" in str(error)


def test_a_flipped_bit_of_a_tensor_is_noticed(tmp_path):
    path = tmp_path / "a.pt"
    torchfile.save(path, TREE)
    at = path.read_bytes().index(TREE["w"].tobytes())
    with open(path, "r+b") as file:
        file.seek(at + 5)
        file.write(b"\x01")
    with pytest.raises(ValueError, match="data/0 differs from its checksum"):
        torchfile.load(path)


def test_a_file_saved_without_checksums_is_read(tmp_path):
    path = tmp_path / "a.pt"
    torchfile.save(path, TREE)
    with zipfile.ZipFile(path) as archive:
        sums = [struct.pack("<I", info.CRC) for info in archive.infolist()]
    raw = path.read_bytes()
    for crc in sums:
        raw = raw.replace(crc, bytes(4))
    path.write_bytes(raw)
    same(torchfile.load(path), TREE)


def test_what_is_no_file_of_torch_is_called_by_its_name(tmp_path):
    made = b"\x80\x02" + tensor(storage(1), 0, (1,), (1,)) + b"."
    one = np.ones(1, np.float32).tobytes()
    path = tmp_path / "x.pt"

    def refused(match: str) -> None:
        with pytest.raises(ValueError, match=f"x.pt .*{match}"):
            torchfile.load(path)

    for content, match in [
        (b"", "is empty"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "before 1.6"),
        (b"a" * 257 + b"ustar" + b"\0" * 300, "before 1.6"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "not a file of torch.save; it begins with b'<!DOCTYP'"),
    ]:
        path.write_bytes(content)
        refused(match)
    for change, match in [
        (dict(skip=("data.pkl",)), "0 members data.pkl"),
        (dict(order=b"big"), "byte order is b'big'"),
        (dict(compression=zipfile.ZIP_LZMA), "is compressed"),
    ]:
        write(path, made, one, **change)
        refused(match)
    write(path, made, one)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 6] = 99  # asks for a reader of zip 9.9
    path.write_bytes(raw)
    refused("zip file version 9.9")
    write(path, made)
    refused("member model/data/0 is missing")
    write(path, made, one[:3])
    refused("storage 0 has 3 bytes, expected 4")
    with pytest.raises(FileNotFoundError, match="no file .*there.pt"):
        torchfile.load(tmp_path / "there.pt")


# ---- saving


@pytest.mark.parametrize(
    "value", [object(), b"bytes", {1, 2}, np.int64(3), np.ones(2, ">f4"), np.ones(2, complex)]
)
def test_what_torch_cannot_hold_is_refused_before_anything_is_written(tmp_path, value):
    with pytest.raises(TypeError, match="cannot save|no tensor of type"):
        torchfile.save(tmp_path / "a.pt", {"ok": np.ones(3), "bad": [value]})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    torchfile.save(path, {"old": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left.*a.pt"):
        torchfile.save(path, TREE)
    assert torchfile.load(path) == {"old": 1} and list(tmp_path.iterdir()) == [path]


def test_a_tree_from_json_is_saved_as_it_is(tmp_path):
    tree = json.loads('{"a": [1, -2.5e-300, null, true, "\\ud83d\\ude00"], "b": {"c": {}}}')
    torchfile.save(tmp_path / "a.pt", tree)
    same(torchfile.load(tmp_path / "a.pt"), tree)
