"""Which shards are in use, and what is said where there are none."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat_jax.config import paths
from nanochat_jax.config.stages import TokenizerTrain
from nanochat_jax.data import shards
from nanochat_jax.data.documents import TokenizedDocuments
from nanochat_jax.train import tokenizer
from scripts import data


def write(folder, count):
    for number in range(count):
        shards.write_shard(folder / shards.shard_name(number), [f"text {number}"])


def test_own_shards_come_before_the_embedded_world(tmp_path):
    assert paths.data_in_use(tmp_path) is None
    write(paths.world_data(tmp_path), 3)
    assert shards.find_shards(tmp_path).source == "world_data"
    write(paths.base_data(tmp_path), 2)
    assert shards.find_shards(tmp_path).source == "base_data"


def test_the_last_shard_by_name_validates_and_the_others_train(tmp_path):
    write(paths.base_data(tmp_path), 3)
    found = shards.find_shards(tmp_path)
    assert [p.name for p in found.train] == ["shard_00000.parquet", "shard_00001.parquet"]
    assert found.val.name == "shard_00002.parquet"


def test_a_world_whose_writer_was_killed_while_replacing_it_is_found(tmp_path):
    world = paths.world_data(tmp_path)
    write(world, 2)
    world.rename(tmp_path / ".world_data.old")
    assert len(shards.find_shards(tmp_path).train) == 1 and world.is_dir()


@pytest.mark.parametrize(
    ("count", "error", "reason"),
    [(0, FileNotFoundError, "scripts.data download"), (1, ValueError, "only shard")],
)
def test_too_few_shards_are_an_error_that_names_the_command(tmp_path, count, error, reason):
    write(paths.base_data(tmp_path), count)
    with pytest.raises(error, match=reason):
        shards.find_shards(tmp_path)


def test_a_shard_that_cannot_be_written_leaves_the_one_that_was(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(Exception, match="int"):
        shards.write_shard(tmp_path / shards.shard_name(0), ["text", 3])
    path = tmp_path / shards.shard_name(0)
    assert list(shards.iter_documents([path])) == [["text 0"]] and list(tmp_path.iterdir()) == [
        path
    ]


def rot(path):
    """Zeros where the text of a shard begins, whose end still says what was there."""
    data = bytearray(path.read_bytes())
    data[4:64] = bytes(60)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (lambda path: path.unlink(), "shard_00001.parquet is gone; put it back, or get it again"),
        (rot, r"shard_00001.parquet: row group 0 is damaged .*; delete the file and get it again"),
        (lambda path: path.write_bytes(b"PAR1"), "shard_00001.parquet is not a readable parquet"),
    ],
)
def test_a_shard_that_vanishes_or_rots_while_others_are_read_is_named(tmp_path, how, told):
    for number in range(2):
        texts = [f"{number * 100 + n} bottles of tea" for n in range(100)]
        shards.write_shard(tmp_path / shards.shard_name(number), texts)
    reading = shards.iter_documents(shards.list_shards(tmp_path))
    assert len(next(reading)) == 100
    how(tmp_path / shards.shard_name(1))
    with pytest.raises(ValueError, match=told):
        next(reading)


def empty(folder, *numbers, groups=1):
    """Shards as other writers leave them: row groups without a row."""
    schema = pa.schema([("text", pa.string())])
    for number in numbers:
        with pq.ParquetWriter(folder / shards.shard_name(number), schema) as file:
            for _ in range(groups):
                file.write_table(schema.empty_table(), row_group_size=1)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [([0, 1], "to train on: shard_00000.parquet, shard_00001"), ([2], "to validate: shard_00002")],
)
def test_shards_without_a_document_are_named_and_not_waited_for(base_dir, capsys, numbers, reason):
    folder = paths.base_data(base_dir)
    write(folder, 3)
    empty(folder, *numbers)
    (folder / ".shard.1234.part").write_bytes(b"half of one")
    with pytest.raises(ValueError, match=f"no document {reason}"):
        shards.find_shards(base_dir)
    assert data.main(["list"]) == 0 and data.main(["verify"]) == 1
    said = capsys.readouterr().out
    assert said.count("EMPTY") == 2 * len(numbers)
    assert "left over on disk: 1, 11 bytes; python -m scripts.data clean shows them" in said
    assert f"{shards.shard_name(numbers[0])}  EMPTY: it holds no document" in said


def test_an_empty_shard_among_others_is_named_and_read_over(tmp_path, caplog):
    folder = paths.base_data(tmp_path)
    write(folder, 3)
    empty(folder, 0, groups=2)
    found = shards.find_shards(tmp_path)
    made = tokenizer.run(TokenizerTrain(vocab_size=280), tmp_path)
    assert made.figures["hash"]
    TokenizedDocuments(found.train, None)
    assert f"{found.train[0]} holds no document" in caplog.text
    with pytest.raises(ValueError, match="to train on: shard_00000.parquet without"):
        tokenizer.run(TokenizerTrain(vocab_size=280, num_shards=1), tmp_path)


def test_ranks_whose_row_groups_are_all_empty_are_refused(tmp_path):
    empty(tmp_path, 0, groups=3)
    write(tmp_path / "more", 1)
    files = [tmp_path / shards.shard_name(0), tmp_path / "more" / shards.shard_name(0)]
    TokenizedDocuments(files, None, rank=0, ranks=2)
    with pytest.raises(ValueError, match="rank 1 of 2 finds no row group"):
        TokenizedDocuments(files, None, rank=1, ranks=2)
    with pytest.raises(ValueError, match=r"no document in .*shard_00000\.parquet"):
        TokenizedDocuments(files[:1], None)


def test_a_column_that_is_no_utf_8_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    bytes_of_latin_1 = pa.array([b"caf\xe9"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": bytes_of_latin_1}), path)
    with pytest.raises(ValueError, match=r"a\.parquet: row group 0 holds no UTF-8"):
        list(shards.iter_documents([path]))
