"""Own texts and chats: nothing lost in silence, and validation stays validation."""

import gzip
import json

import pytest

from nanochat_jax.config import paths
from nanochat_jax.data import importer, shards
from nanochat_jax.tasks.conversation import read_conversations

STORY = [f"Document number {i} tells of {i * 7} things.\nAnd of more." for i in range(400)]


def texts_of(root):
    found = shards.find_shards(root)
    read = lambda files: {t for group in shards.iter_documents(files) for t in group}
    return read(found.train), read([found.val])


def jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return path


def test_every_document_arrives_once_in_train_or_validation(tmp_path):
    done = importer.add_documents(tmp_path, [jsonl(tmp_path / "a.jsonl", STORY + STORY[:5])])
    train, val = texts_of(tmp_path)
    assert train | val == set(STORY) and not train & val and val
    assert (done.train, done.val, done.duplicates) == (len(train), len(val), 5)


def test_adding_more_moves_no_document_across_the_split(tmp_path):
    importer.add_documents(tmp_path, [jsonl(tmp_path / "a.jsonl", STORY[:200])])
    train, val = texts_of(tmp_path)
    done = importer.add_documents(tmp_path, [jsonl(tmp_path / "b.jsonl", STORY)])
    more_train, more_val = texts_of(tmp_path)
    assert train < more_train and val <= more_val and done.duplicates == 200
    assert not more_train & more_val
    assert shards.find_shards(tmp_path).val.name == importer.VAL_NAME


def test_parquet_jsonl_text_and_gz_in_folders_are_read(tmp_path):
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    shards.write_shard(folder / "p.parquet", STORY[:3])
    with gzip.open(folder / "j.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps({"text": t}) + "\n" for t in STORY[3:6]))
    (folder / "t.txt").write_text("A text file of one document.")
    (folder / "README.md").write_text("not meant")
    importer.add_documents(tmp_path, [tmp_path / "in"])
    train, val = texts_of(tmp_path)
    assert train | val == {*STORY[:6], "A text file of one document."}


def test_a_long_text_file_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    text = "\n\n".join(f"Paragraph {i}. " + "word " * 60 for i in range(40))
    path = tmp_path / "book.txt"
    path.write_text(text)
    pieces = list(importer.read_documents(path))
    assert len(pieces) > 3 and "\n\n".join(pieces) == text


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", '{"text": "good"}\n{"text": 3}\n', "line 2"),
        ("a.jsonl", '{"text": "good"}\n{"tex\n', "line 2: not valid JSON"),
        ("a.txt", b"\xff\xfe\x00bad", "not UTF-8"),
        ("a.jsonl.gz", b"no gzip", "damaged"),
        ("a.parquet", b"no parquet", "not a readable parquet"),
        ("a.docx", "x", "expected a file ending in"),
    ],
)
def test_a_bad_file_is_named_and_nothing_is_written(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=reason):
        importer.add_documents(tmp_path, [path])
    assert not shards.list_shards(tmp_path / "base_data")


def test_a_row_that_is_no_text_is_named_by_file_group_and_row(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["good", None]}), path)
    with pytest.raises(ValueError, match=r"a\.parquet: row 1 of row group 0"):
        importer.add_documents(tmp_path, [path])


def test_an_import_that_was_killed_can_be_called_again(tmp_path, monkeypatch):
    path, write = jsonl(tmp_path / "a.jsonl", STORY), shards.write_shard
    for allowed in (0, 1):
        left = iter(range(allowed))
        dying = lambda *args, left=left: write(*args) if next(left, None) is not None else 1 / 0
        monkeypatch.setattr(shards, "write_shard", dying)
        with pytest.raises(ZeroDivisionError):
            importer.add_documents(tmp_path, [path])
    monkeypatch.setattr(shards, "write_shard", write)
    importer.add_documents(tmp_path, [path])
    train, val = texts_of(tmp_path)
    assert train | val == set(STORY) and not train & val and val


def test_downloaded_shards_are_not_mixed_with_own_texts(tmp_path):
    for i in range(2):
        shards.write_shard(tmp_path / "base_data" / f"shard_{i:05d}.parquet", STORY[i::2])
    with pytest.raises(ValueError, match="another base directory"):
        importer.add_documents(tmp_path, [jsonl(tmp_path / "a.jsonl", STORY)])


CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def chat(n):
    return [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": "Yes."}]


def test_conversations_of_both_forms_are_imported_and_split_for_good(tmp_path):
    path = tmp_path / "c.jsonl"
    lines = [json.dumps(chat(n)) for n in range(100)]
    lines += [json.dumps({"messages": chat(n)}) for n in range(100, 200)] + [json.dumps(chat(3))]
    path.write_text("\n".join(lines) + "\n")
    done = importer.add_conversations(tmp_path, [path])
    assert (done.train + done.val, done.duplicates) == (200, 1) and done.val
    again = importer.add_conversations(tmp_path, [path])
    assert (again.train, again.val, again.duplicates) == (0, 0, 201)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('[{"role": "user", "content": "Hi"}]', "at least 2 messages"),
        ('[{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]', "at least 2"),
        (json.dumps(CHAT[::-1]), "expected the role user"),
        (json.dumps([CHAT[0], {"role": "assistant", "content": 3}]), "got int: 3"),
        ('{"message": []}', "got an object with keys"),
        ("[", "not valid JSON"),
    ],
)
def test_a_bad_conversation_is_named_by_file_and_line(tmp_path, line, reason):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(CHAT) + "\n\n" + line + "\n")
    with pytest.raises(ValueError, match=rf"c\.jsonl, line 3: .*{reason}"):
        importer.add_conversations(tmp_path, [path])
    assert not (tmp_path / "conversations").exists()


def test_a_line_end_inside_a_message_does_not_split_it_at_the_next_import(tmp_path):
    odd = [{"role": "user", "content": "a\u2028b\x85c"}, CHAT[1]]
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(odd) + "\n" + json.dumps(chat(1)) + "\n")
    importer.add_conversations(tmp_path, [path])
    assert importer.add_conversations(tmp_path, [path]).duplicates == 2
    lines = [*read_conversations(paths.conversations(tmp_path, "train"))]
    lines += read_conversations(paths.conversations(tmp_path, "val"))
    assert odd in lines and len(lines) == 2


def test_of_a_few_documents_one_validates(tmp_path):
    done = importer.add_documents(tmp_path, [jsonl(tmp_path / "a.jsonl", STORY[:3])])
    train, val = texts_of(tmp_path)
    assert (done.train, done.val) == (len(train), len(val)) == (2, 1)
