"""A saved tokenizer comes back the same, loads elsewhere, and a damaged one is named."""

import json

import pytest
import tokenizers

from nanochat_jax.tokenizer import Tokenizer

TEXT = "It's 12 o'clock: the cat <|bos|> sat, naïvely 🙂\n\n  twice.\n"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT * 3, "the cat and the mat"], 320)


@pytest.fixture
def saved(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_saving_and_loading_gives_the_same_tokenizer(tokenizer, saved):
    assert Tokenizer.load(saved) == tokenizer
    assert Tokenizer.load(str(saved)).encode(TEXT) == tokenizer.encode(TEXT)


def test_saving_twice_writes_the_same_bytes_and_leaves_nothing_else(tokenizer, saved):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    tokenizer.save(saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert sorted(before) == ["meta.json", "ranks.tiktoken", "tokenizer.json"]


def test_meta_says_everything_that_is_not_a_rank(tokenizer, saved):
    meta = json.loads((saved / "meta.json").read_text(encoding="utf-8"))
    assert meta["hash"] == tokenizer.hash
    assert meta["pattern"] == tokenizer.pattern
    assert meta["special_tokens"] == tokenizer.special_tokens
    assert meta["token_bytes"] == tokenizer.token_bytes().tolist()


def test_ranks_are_in_the_text_format_of_tiktoken(tokenizer, saved):
    lines = (saved / "ranks.tiktoken").read_text("ascii").splitlines()
    assert lines[0] == "AA== 0" and lines[97] == "YQ== 97"
    assert len(lines) == len(tokenizer.mergeable_ranks)


def test_huggingface_loads_the_file_with_the_same_ids(tokenizer, saved):
    theirs = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    bos = tokenizer.get_bos_token_id()
    # There a special token in a text is one token, unless it is told otherwise.
    before, after = TEXT.split("<|bos|>")
    assert theirs.encode(TEXT).ids == [*tokenizer.encode(before), bos, *tokenizer.encode(after)]
    theirs.encode_special_tokens = True
    assert theirs.encode(TEXT).ids == tokenizer.encode(TEXT)
    assert theirs.decode(tokenizer.encode(TEXT)) == TEXT
    assert theirs.get_vocab_size() == tokenizer.get_vocab_size()


def test_the_huggingface_file_comes_back_as_the_same_tokenizer(tokenizer, saved):
    assert Tokenizer.from_tokenizer_json(saved / "tokenizer.json") == tokenizer


@pytest.mark.parametrize("change", ["WordPiece", "order", "no pattern", "not JSON"])
def test_another_kind_of_huggingface_file_is_refused(saved, change):
    path = saved / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    if change == "WordPiece":
        data["model"] = {"type": "WordPiece", "vocab": {"the": 0}}
    elif change == "order":
        data["model"]["merges"].reverse()
    elif change == "no pattern":
        data["pre_tokenizer"] = {"type": "ByteLevel", "use_regex": True}
    path.write_text("{" if change == "not JSON" else json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json: expected a byte-level BPE"):
        Tokenizer.from_tokenizer_json(path)


def test_without_a_tokenizer_the_message_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m scripts.train --stage tokenizer"):
        Tokenizer.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["meta.json", "ranks.tiktoken"])
@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b"{" + b, lambda b: b""])
def test_a_damaged_file_is_named(saved, name, damage):
    path = saved / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=name):
        Tokenizer.load(saved)


def test_files_of_two_tokenizers_do_not_pass_for_one(tokenizer, saved, tmp_path):
    Tokenizer.train(["another text altogether"], 300).save(tmp_path / "other")
    (tmp_path / "other" / "meta.json").replace(saved / "meta.json")
    with pytest.raises(ValueError, match="does not belong to meta.json"):
        Tokenizer.load(saved)


def test_an_interrupted_save_leaves_the_old_tokenizer(tokenizer, saved, monkeypatch):
    class Broken(Tokenizer):
        def to_huggingface(self):
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        Broken.train(["another text"], 300).save(saved)
    assert Tokenizer.load(saved) == tokenizer
    assert len(list(saved.iterdir())) == 3
