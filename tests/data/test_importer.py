"""Own texts and chats: nothing lost in silence, and validation stays validation."""

import gzip
import json
import multiprocessing
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat_jax import tasks, texts
from nanochat_jax.config import paths
from nanochat_jax.config.data import ListShards, VerifyShards
from nanochat_jax.data import commands, importer, inputs, shards
from nanochat_jax.tasks.conversation import read_conversations
from nanochat_jax.tokenizer.chat_format import exchange
from scripts import data

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
    assert shards.find_shards(tmp_path).val.name == shards.VAL_NAME


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
    pieces = list(inputs.read_documents(path))
    assert len(pieces) > 3 and "\n\n".join(pieces) == text


def test_a_packed_text_is_cut_as_it_is_read_and_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "CHUNK", 1000)
    text = "\n\n".join(f"Paragraph {i}. " + "word " * 60 for i in range(2000))
    path, whole = tmp_path / "book.txt.gz", gzip.compress(text.encode(), compresslevel=0)
    path.write_bytes(whole[: len(whole) // 2])
    pieces, read = inputs.text_documents(path), []
    with pytest.raises(ValueError, match="damaged"):
        read.extend(pieces)
    assert len(read) > 100 and text.startswith("\n\n".join(read))
    path.write_bytes(whole)
    assert "\n\n".join(inputs.text_documents(path)) == text


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_how_a_text_is_read_makes_no_other_pieces(tmp_path, monkeypatch, chunk):
    rng, path = random.Random(chunk), tmp_path / "a.txt"
    monkeypatch.setattr(texts, "CHUNK", chunk)
    monkeypatch.setattr(inputs, "LONGEST_PARAGRAPH", 20)
    for _ in range(100):
        text = "".join(rng.choices("ab\n", (4, 4, rng.choice([1, 3])), k=rng.randrange(200)))
        path.write_text(text)
        wanted = []
        for paragraph in text.split("\n\n"):
            first, *lines = paragraph.split("\n") if len(paragraph) > 20 else [paragraph]
            wanted += [("\n\n", first), *(("\n", line) for line in lines)]
        assert list(inputs._pieces(path)) == wanted


def test_lines_without_a_blank_one_are_cut_as_they_are_read_and_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "CHUNK", 1000)
    whole = gzip.compress("\n".join(f"Line {i}." for i in range(50_000)).encode(), compresslevel=0)
    (tmp_path / "a.txt.gz").write_bytes(whole[: len(whole) // 2])
    pieces, read = inputs.text_documents(tmp_path / "a.txt.gz"), []
    with pytest.raises(ValueError, match="damaged"):
        read.extend(pieces)
    assert len(read) > 100


def test_a_text_without_a_document_is_named(tmp_path):
    (tmp_path / "a.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match=r"no document in .*a\.txt"):
        importer.add_documents(tmp_path, [tmp_path / "a.txt"])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", '{"text": "good"}\n{"text": 3}\n', "line 2"),
        ("a.jsonl", '{"text": "good"}\n{"tex\n', "line 2: not valid JSON"),
        ("a.jsonl", '{"text": "x", "meta": ' + "[" * 50_000, "line 1: nested too deeply"),
        ("a.jsonl", '{"text": "x", "id": -' + "9" * 5000 + "}", "line 1: a number of more than"),
        ("a.txt", b"\xff\xfe\x00bad", "not UTF-8"),
        ("a.jsonl.gz", b"no gzip", "damaged"),
        ("a.parquet", b"no parquet", "not a readable parquet"),
        ("a.docx", "x", "expected a file ending in"),
        ("a.parquet.gz", "x", "expected a file ending in"),
    ],
)
def test_a_bad_file_is_named_and_nothing_is_written(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=reason):
        importer.add_documents(tmp_path, [path])
    assert not shards.list_shards(tmp_path / "base_data")


def test_a_row_that_is_no_text_is_named_by_file_group_and_row(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["good", None]}), path)
    with pytest.raises(ValueError, match=r"a\.parquet: row 1 of row group 0"):
        importer.add_documents(tmp_path, [path])


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_text_is_read_in_whatever_way_arrow_keeps_it(tmp_path, kind):
    text = pa.array(["one", "two"])
    column = text.dictionary_encode() if kind == "dictionary" else text.cast(getattr(pa, kind)())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    done = importer.add_documents(tmp_path, [tmp_path / "a.parquet"])
    assert done.train + done.val == 2


def test_a_table_without_a_column_of_text_is_named(tmp_path):
    pq.write_table(pa.table({"content": ["one"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [b"one"]}), tmp_path / "b.parquet")
    with pytest.raises(
        ValueError, match=r"a\.parquet has columns \['content'\]; expected one named"
    ):
        importer.add_documents(tmp_path, [tmp_path / "a.parquet"])
    with pytest.raises(ValueError, match=r"b\.parquet: row 0 of row group 0 is b'one'"):
        importer.add_documents(tmp_path, [tmp_path / "b.parquet"])


def test_chats_are_listed_and_verified_also_where_there_is_no_text(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no text"):
        commands.run(ListShards())
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps(exchange(f"{i}?", f"{i}.")) for i in range(3))
    )
    assert data.main(["add", str(tmp_path / "a.jsonl"), "--conversations"]) == 0
    for command in (ListShards(), VerifyShards()):
        assert commands.run(command) == 0
    told = capsys.readouterr().out
    assert told.count("conversations/train.jsonl  train          2 conversations") == 2
    assert told.count("no text to train on") == 2
    with paths.conversations(tmp_path, "train").open("a") as file:
        file.write("[]\n")
    assert commands.run(VerifyShards()) == 1
    assert "train.jsonl, line 3: " in capsys.readouterr().out


def test_hidden_files_beside_shards_are_left_out_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}')
    importer.add_documents(tmp_path, [tmp_path / "a.jsonl"])
    (tmp_path / "base_data" / "._shard_00000.parquet").write_bytes(b"\0\5\26\7")
    for command in (ListShards(), VerifyShards()):
        assert commands.run(command) == 0
        assert "  ._shard_00000.parquet  left out: a hidden file" in capsys.readouterr().out


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
        (json.dumps(CHAT[::-1]), "expected the role user"),
        (json.dumps([CHAT[0], {"role": "assistant", "content": 3}]), "got int: 3"),
        ('{"message": []}', "got an object with keys"),
        ("[", "not valid JSON"),
        ('[{"content": "Hi"}, {"content": "Hello"}]', "no 'role'"),
        ('[{"role": "system", "content": "S"}]', "at least 2 messages"),
        (json.dumps([*CHAT, {"role": "system", "content": "S"}, *CHAT]), "expected the role user"),
        (
            json.dumps([CHAT[0], CHAT[0], CHAT[1], {"role": "tool"}]),
            "no 'content'.*a reply",
        ),
        (json.dumps([{"role": "user", "content": [{"type": "image_url"}]}, CHAT[1]]), "got list"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"messages": ' + json.dumps(CHAT) + ', "at": ' + "9" * 5000 + "}", "4,300 digits"),
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


def test_one_document_validates_until_another_comes(tmp_path):
    for some in (STORY[:1], STORY[1:2]):
        importer.add_documents(tmp_path, [jsonl(tmp_path / "a.jsonl", some)])
    assert texts_of(tmp_path) == ({STORY[1]}, {STORY[0]})


def test_a_gap_in_the_numbers_is_left_and_no_shard_is_written_over(tmp_path):
    folder = tmp_path / "base_data"
    for part in (STORY[:100], STORY[100:200]):
        importer.add_documents(tmp_path, [jsonl(tmp_path / "a.jsonl", part)])
    (folder / "shard_00000.parquet").unlink()
    (folder / "SHARD_00002.PARQUET").write_bytes((folder / "shard_00001.parquet").read_bytes())
    importer.add_documents(tmp_path, [jsonl(tmp_path / "a.jsonl", STORY[200:])])
    names = [path.name for path in shards.list_shards(folder)]
    assert names == ["SHARD_00002.PARQUET", *map(shards.shard_name, (1, 3)), shards.VAL_NAME]
    train, val = texts_of(tmp_path)
    assert set(STORY[100:]) <= train | val


def test_the_name_of_the_validation_shard_is_never_given_to_another(tmp_path):
    for name in ("shard_99998.parquet", shards.VAL_NAME):
        shards.write_shard(tmp_path / "base_data" / name, [name])
    importer.add_documents(tmp_path, [jsonl(tmp_path / "a.jsonl", STORY)])
    assert shards.find_shards(tmp_path).val.name == shards.VAL_NAME
    train, val = texts_of(tmp_path)
    assert {"shard_99998.parquet", *STORY} <= train | val and shards.VAL_NAME in val


def test_two_imports_at_once_lose_nothing(tmp_path):
    files = [jsonl(tmp_path / f"{i}.jsonl", STORY[i::3]) for i in range(3)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.starmap(importer.add_documents, [(tmp_path, [file]) for file in files])
    train, val = texts_of(tmp_path)
    assert train | val == set(STORY) and not train & val


def test_half_a_character_becomes_the_replacement_character(tmp_path):
    documents = tmp_path / "a.jsonl"
    documents.write_text('{"text": "half \\ud83d, whole \\ud83d\\ude00"}\n{"text": "b"}\n')
    importer.add_documents(tmp_path, [documents])
    assert "half \ufffd, whole \U0001f600" in set.union(*texts_of(tmp_path))
    chats = tmp_path / "c.jsonl"
    chats.write_text(json.dumps([{**CHAT[0], "content": "a \ude00"}, CHAT[1]]) + "\n")
    importer.add_conversations(tmp_path, [chats])
    (read,) = read_conversations(paths.conversations(tmp_path, "train"))
    assert read[0]["content"] == "a \ufffd"


def test_what_is_meant_in_a_folder_is_taken_and_the_rest_is_said(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "in"
    hidden = (".ipynb_checkpoints/a.txt", "._b.jsonl")
    for name in ("A.TXT", "b.JSONL", "d.txt.GZ", *hidden, "README.md", "c.pdf"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = b'{"text": "lines"}\n' if name.startswith("b") else name.encode()
        path.write_bytes(gzip.compress(content) if name.endswith("GZ") else content)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    assert data.main(["add", str(folder)]) == 0
    assert set.union(*texts_of(tmp_path)) == {"A.TXT", "lines", "d.txt.GZ"}
    said = capsys.readouterr().out
    assert "3 file(s)" in said
    assert "left out: 2 hidden file(s); 1 named README; 1 ending in '.pdf'" in said


def test_a_hidden_folder_that_is_named_itself_is_meant(tmp_path):
    folder = tmp_path / ".notes"
    folder.mkdir()
    (folder / "a.txt").write_text("mine")
    assert inputs.find([folder], inputs.ENDINGS) == ([folder / "a.txt"], [])


# Chats as people have them


def imported(root, *conversations):
    """What an import of these leaves, and what it says."""
    path = root / "c.jsonl"
    root.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(c) + "\n" for c in conversations))
    done = importer.add_conversations(root, [path])
    files = [paths.conversations(root, split) for split in ("train", "val")]
    return [m for f in files if f.exists() for m in read_conversations(f)], done.left_out


ASKED, STOPPED = {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    "messages",
    [
        [ASKED, *CHAT],
        [ASKED, STOPPED, *CHAT],
        [ASKED, {"role": "assistant", "content": None}, *CHAT],
        [ASKED, {"role": "assistant", "content": []}, *CHAT],
        [*CHAT, ASKED],
        [*CHAT, ASKED, STOPPED],
    ],
)
def test_what_got_no_reply_is_left_out_and_counted(tmp_path, messages):
    kept, said = imported(tmp_path, {"title": "Hello?", "messages": messages})
    assert kept == [CHAT] and said == (f"{len(messages) - 2} message(s) without a reply",)


def test_a_chat_without_any_reply_is_left_out_whole(tmp_path):
    kept, said = imported(tmp_path, chat(1), [{"role": "system", "content": "S"}, ASKED], [ASKED])
    assert kept == [chat(1)]
    assert said == ("3 message(s) without a reply, of which 2 conversation(s) whole",)
    with pytest.raises(ValueError, match=r"no conversation with a reply in .*c\.jsonl"):
        imported(tmp_path / "other", [ASKED])


def test_what_openai_calls_developer_and_parts_of_text_are_taken(tmp_path):
    parts = lambda *texts: [{"type": "text", "text": text} for text in texts]
    given = [
        {"role": "developer", "content": parts("Be ", "kind.")},
        {"role": "user", "content": parts("H", "i"), "name": "ada", "id": 3},
        {"role": "assistant", "content": parts("Hello"), "tool_calls": []},
    ]
    kept, said = imported(tmp_path, given)
    assert kept == [
        [{"role": "system", "content": "Be kind."}, CHAT[0],
         {"role": "assistant", "content": parts("Hello")}]
    ] and not said  # fmt: skip


def test_one_chat_alone_makes_no_empty_file_and_training_says_what_is_missing(tmp_path):
    imported(tmp_path, CHAT)
    assert not paths.conversations(tmp_path, "val").exists()
    for empty in (False, True):  # an earlier version wrote an empty one
        if empty:
            paths.conversations(tmp_path, "val").touch()
        with pytest.raises(ValueError, match="none of them is held out.*add another"):
            tasks.build(["conversations"], tmp_path, "val")
    kept, _ = imported(tmp_path, chat(1))
    assert kept == [CHAT, chat(1)]
    assert len(tasks.build(["conversations"], tmp_path, "val")) == 1


def test_chats_that_an_earlier_version_stored_with_more_are_known(tmp_path):
    stored = paths.conversations(tmp_path, "train")
    stored.parent.mkdir()
    stored.write_text(json.dumps([{**m, "id": 1} for m in CHAT]) + "\n")
    assert importer.add_conversations(tmp_path, [stored]).duplicates == 1


@pytest.mark.parametrize("shape", ["document", "text", "chat", "message", "part", "role"])
def test_json_of_any_depth_is_read_or_refused_with_its_line(tmp_path, shape):
    path, answer, deep = tmp_path / "a.jsonl", {"role": "assistant", "content": "X"}, "DEEP"
    value = {
        "document": {"text": "one", "meta": deep}, "text": {"text": deep}, "chat": deep,
        "message": [{**CHAT[0], "meta": deep}, answer],
        "part": [CHAT[0], {**answer, "content": [{"type": "text", "text": "X", "at": deep}]}],
        "role": [{**CHAT[0], "role": deep}, answer],
    }[shape]  # fmt: skip
    documents = shape in ("document", "text")
    read = inputs.read_documents if documents else read_conversations
    for depth in (10, 500, *range(900, 1000, 5), 100_000):
        path.write_text(json.dumps(value).replace('"DEEP"', "[" * depth + "]" * depth))
        try:
            json.dumps(list(read(path)))
        except ValueError as error:
            assert "line 1" in str(error)


def test_a_file_without_paragraphs_is_cut_at_its_lines(tmp_path):
    lines = "\n".join(f"Line number {n} of many." for n in range(3000))
    (tmp_path / "a.txt").write_text(f"One.\n\n{lines}\n\nTwo.")
    pieces = list(inputs.text_documents(tmp_path / "a.txt"))
    assert 30 < len(pieces) < 50 and max(map(len, pieces)) <= 2200
    assert "\n".join(pieces).split() == f"One. {lines} Two.".split()
    assert pieces[0].startswith("One.\n\nLine number 0 of many.\nLine")
