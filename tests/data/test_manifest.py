"""A shard that has changed is found, one that was only touched is not, and none is read in vain."""

import multiprocessing
import os
import time

import pytest

from nanochat_jax.config import paths
from nanochat_jax.data import importer, ledger, manifest, shards
from nanochat_jax.files import write_json
from scripts.data import main

LATER = time.time() + 100


@pytest.fixture
def folder(base_dir):
    """Three shards put there by hand."""
    folder = paths.base_data(base_dir)
    for number in range(3):
        shards.write_shard(folder / shards.shard_name(number), [f"text {number}"] * 50)
    return folder


def first(folder):
    return folder / shards.shard_name(0)


def flip(path, keep_time=False):
    """Changes a byte, and nothing of the size."""
    raw, stat = bytearray(path.read_bytes()), path.stat()
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    when = stat.st_mtime_ns if keep_time else stat.st_mtime_ns + 10**9
    os.utime(path, ns=(when, when))


def counting(monkeypatch):
    """The files that are hashed from now on."""
    read, real = [], manifest.sha256
    monkeypatch.setattr(manifest, "sha256", lambda path: read.append(path.name) or real(path))
    return read


def test_verify_reads_a_folder_without_a_manifest_and_writes_one_when_asked(folder, capsys):
    assert main(["verify"]) == 0
    assert "no digest recorded" in capsys.readouterr().out and not manifest.read(folder)
    assert main(["verify", "--write"]) == 0
    assert {*manifest.read(folder)} == {path.name for path in shards.list_shards(folder)}
    assert main(["verify"]) == 0
    assert capsys.readouterr().out.count("digest as recorded") == 3


@pytest.mark.parametrize("keep_time", [True, False])
def test_verify_names_a_shard_that_has_changed_and_goes_on(folder, capsys, keep_time):
    main(["verify", "--write"])
    flip(first(folder), keep_time)
    capsys.readouterr()
    assert main(["verify", "--write"]) == 1
    first_line, *others = capsys.readouterr().out.splitlines()
    assert "shard_00000.parquet  DAMAGED" in first_line and "is not what it was" in first_line
    assert all("digest as recorded" in line for line in others)


def test_verify_names_a_shard_that_is_gone(folder, capsys):
    main(["verify", "--write"])
    first(folder).unlink()
    assert main(["verify"]) == 1
    assert "shard_00000.parquet  MISSING" in capsys.readouterr().out


def test_a_damaged_manifest_says_how_to_have_another(folder):
    (folder / manifest.NAME).write_text('{"shard_00000.parquet": 3}')
    with pytest.raises(ValueError, match="delete it"):
        manifest.identify(shards.list_shards(folder))


def test_what_was_recorded_is_not_read_again_and_what_was_touched_is_read_once(folder, monkeypatch):
    files, read = shards.list_shards(folder), counting(monkeypatch)
    what = manifest.identify(files)
    assert all(text.startswith("sha256:") for text in what.values()) and len(read) == 3
    assert manifest.identify(files) == what and len(read) == 3
    os.utime(files[1], (LATER, LATER))
    assert manifest.identify(files) == what and manifest.identify(files) == what
    assert read[3:] == [files[1].name]


def test_large_shards_without_digests_are_told_apart_by_size_and_nothing_stalls(
    folder, monkeypatch, caplog
):
    caplog.set_level("INFO")
    monkeypatch.setattr(manifest, "QUICK_BYTES", 100)
    files, read = shards.list_shards(folder), counting(monkeypatch)
    what = manifest.identify(files)
    assert what == {path.name: f"bytes:{path.stat().st_size}" for path in files}
    assert not read and not (folder / manifest.NAME).exists() and "verify --write" in caplog.text
    assert manifest.identify(files, [files[0].name])[files[0].name].startswith("sha256:")
    assert read == [files[0].name]


def test_a_folder_that_may_not_be_written_to_is_used_all_the_same(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(manifest, "write_json", refuse)
    assert len(manifest.identify(shards.list_shards(folder))) == 3


def test_a_shard_of_another_size_is_refused_unread(folder, monkeypatch):
    files = shards.list_shards(folder)
    manifest.identify(files)
    first(folder).write_bytes(first(folder).read_bytes() + b"x")
    read = counting(monkeypatch)
    with pytest.raises(ValueError, match=r"shard_00000.parquet is not what it was.* bytes"):
        manifest.identify(files)
    assert not read


def test_what_is_imported_has_its_digest_and_so_has_the_validation_shard_after_more(
    base_dir, tmp_path
):
    for number in range(2):
        text = tmp_path / f"{number}.txt"
        text.write_text("\n\n".join(f"{number} {i} " + "word " * 500 for i in range(200)))
        importer.add_documents(base_dir, [text])
        files = shards.list_shards(paths.base_data(base_dir))
        entries = manifest.read(files[0].parent)
        assert {name: entry.sha256 for name, entry in entries.items()} == manifest.digests(files)


def test_an_import_killed_before_the_digest_leaves_none_rather_than_a_wrong_one(
    base_dir, tmp_path, monkeypatch
):
    (tmp_path / "a.txt").write_text("\n\n".join(f"{i} " + "word " * 500 for i in range(200)))
    importer.add_documents(base_dir, [tmp_path / "a.txt"])
    (tmp_path / "b.txt").write_text("\n\n".join(f"b{i} " + "word " * 500 for i in range(200)))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        importer.add_documents(base_dir, [tmp_path / "b.txt"])
    monkeypatch.undo()
    data = shards.find_shards(base_dir)
    assert data.val.name not in manifest.read(data.val.parent)
    assert data.val.name in ledger.of_shards(data)["val"]


# What a run began with.


def of_run(root):
    return ledger.of_shards(shards.find_shards(root))


def test_a_run_keeps_its_shards_and_their_order_when_others_come(folder, base_dir, caplog):
    caplog.set_level("INFO")
    began = of_run(base_dir)
    for name in ("a_first.parquet", "shard_00001b.parquet", "z_last.parquet"):
        shards.write_shard(folder / name, ["another text"])
    data = ledger.same_shards(base_dir, began)
    assert [path.name for path in data.train] == ["shard_00000.parquet", "shard_00001.parquet"]
    assert data.val.name == "shard_00002.parquet"
    assert "3 shards that came after this run began" in caplog.text
    assert ledger.of_shards(data) == began


def test_a_run_on_the_embedded_world_keeps_it_when_other_text_comes(base_dir):
    for number in range(2):
        shards.write_shard(paths.world_data(base_dir) / shards.shard_name(number), ["valley"])
    began = of_run(base_dir)
    for number in range(2):
        shards.write_shard(paths.base_data(base_dir) / shards.shard_name(number), ["other"])
    assert shards.find_shards(base_dir).source == "base_data"
    data = ledger.same_shards(base_dir, began)
    assert data.source == "world_data" and data.train[0].parent == paths.world_data(base_dir)


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_training_shard_that_has_changed_is_refused_by_name(folder, base_dir, with_manifest):
    began = of_run(base_dir)
    flip(first(folder))
    if not with_manifest:
        (folder / manifest.NAME).unlink()
    with pytest.raises(ValueError, match="shard_00000.parquet .* it was"):
        ledger.same_shards(base_dir, began)


def test_without_digests_another_size_is_refused_and_a_digest_that_came_since_is_no_change(
    folder, base_dir, monkeypatch
):
    monkeypatch.setattr(manifest, "QUICK_BYTES", 0)
    began = of_run(base_dir)
    assert began["train"]["shard_00000.parquet"].startswith("bytes:")
    main(["verify", "--write"])
    ledger.same_shards(base_dir, began)
    (folder / manifest.NAME).unlink()
    shards.write_shard(first(folder), ["text"])
    with pytest.raises(ValueError, match="shard_00000.parquet has changed since the run began"):
        ledger.same_shards(base_dir, began)


def test_a_shard_that_is_gone_is_named(folder, base_dir):
    began = of_run(base_dir)
    first(folder).unlink()
    with pytest.raises(ValueError, match="shard_00000.parquet is gone"):
        ledger.same_shards(base_dir, began)


def test_a_validation_shard_that_was_written_anew_is_told_and_no_error(folder, base_dir, caplog):
    began = of_run(base_dir)
    val = folder / "shard_00002.parquet"
    manifest.forget(folder, val.name)
    shards.write_shard(val, ["more of it"])
    assert ledger.same_shards(base_dir, began).val == val
    assert "shard_00002.parquet has changed: scores" in caplog.text


def test_entries_of_a_newer_program_are_damage_and_not_a_crash(folder):
    write_json(folder / manifest.NAME, {"shard_00000.parquet": {"bytes": 1, "unknown": 2}})
    with pytest.raises(ValueError, match="damaged"):
        manifest.read(folder)


def test_two_processes_that_record_lose_nothing(tmp_path):
    names = [f"shard_{i:05d}.parquet" for i in range(12)]
    for name in names:
        (tmp_path / name).touch()
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(manifest.record, [(tmp_path, {name: "0" * 64}) for name in names])
    assert sorted(manifest.read(tmp_path)) == names


def new(base_dir, began):
    now, then = ledger.new_shards(base_dir, began)
    return {name: (now[name][:7], then.get(name, "")[:7]) for name in now}


def test_what_a_finished_base_run_did_not_read_is_named(folder, base_dir):
    began = ledger.of_shards(shards.find_shards(base_dir))
    assert new(base_dir, began) == {}
    write = lambda n, text: shards.write_shard(folder / shards.shard_name(n), [text])
    write(3, "downloaded further")
    (folder / "shard_00001.parquet").unlink()  # to save space
    assert new(base_dir, began) == {}
    write(0, "other text")
    (folder / manifest.NAME).unlink()  # the change was meant
    assert new(base_dir, began) == {"data shard_00000.parquet": ("sha256:", "sha256:")}
    shards.write_shard(folder / shards.VAL_NAME, ["mine"])
    assert list(new(base_dir, began)) == [f"data shard_{i:05d}.parquet" for i in (0, 2, 3)]
    assert new(base_dir, began | {"source": "world_data"}) == {"data": ("base_da", "world_d")}
