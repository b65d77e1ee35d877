"""A tokenizer's fields travel through nanochat's pickle; nothing else does."""

import pickle
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax.interop import tiktoken_pickle
from nanochat_jax.interop.pickles import UnsafeFile, plain
from nanochat_jax.interop.tiktoken_pickle import EncodingFields
from nanochat_jax.tokenizer import Tokenizer
from tests import needs
from tests.golden.conftest import files, load_json

FIELDS = EncodingFields("rustbpe", r"\p{L}+|\s", {b"a": 0, b"\xff": 1}, {"<|bos|>": 2})

IDS = st.integers(0, 2**40)
ANY_FIELDS = st.builds(
    EncodingFields,
    name=st.text(),
    pat_str=st.text(),
    mergeable_ranks=st.dictionaries(st.binary(), IDS),
    special_tokens=st.dictionaries(st.text(), IDS),
)


@given(fields=ANY_FIELDS)
def test_what_is_saved_comes_back(tmp_path_factory, fields):
    path = tmp_path_factory.mktemp("tiktoken") / "tokenizer.pkl"
    tiktoken_pickle.save(path, fields)
    assert tiktoken_pickle.load(path) == fields
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("state", ["whole", "a name"])
def test_every_protocol_of_pythons_own_pickler_is_read(tmp_path, monkeypatch, protocol, state):
    class Encoding:
        def __init__(self, state):
            self.state = state

        def __getstate__(self):
            return self.state

    core = types.ModuleType("tiktoken.core")
    core.Encoding = Encoding
    Encoding.__module__, Encoding.__qualname__ = "tiktoken.core", "Encoding"
    monkeypatch.setitem(sys.modules, "tiktoken", types.ModuleType("tiktoken"))
    monkeypatch.setitem(sys.modules, "tiktoken.core", core)
    path, whole = tmp_path / "tokenizer.pkl", dict(vars(FIELDS))
    path.write_bytes(pickle.dumps(Encoding(whole if state == "whole" else "gpt2"), protocol))
    if state == "whole":
        assert tiktoken_pickle.load(path) == FIELDS
    else:
        with pytest.raises(ValueError, match="only names the encoding 'gpt2'"):
            tiktoken_pickle.load(path)


@pytest.mark.parametrize("path", files("tokenizer_artifact*.json"))
def test_the_originals_tokenizer_is_the_one_that_its_listing_names(path):
    listing = load_json(path)
    ranks = {bytes.fromhex(token): rank for token, rank in listing["mergeable_ranks"]}
    listed = EncodingFields("rustbpe", listing["pattern"], ranks, listing["special_tokens"])
    pickled = path.parent.glob("checkpoint_*/tokenizer/tokenizer*.pkl")
    assert listed in [tiktoken_pickle.load(file) for file in pickled]


ENCODING = b"ctiktoken.core\nEncoding\n"
ATTACKS = {
    "a call": lambda c: b"cposix\nsystem\n(" + plain(c) + b"tR",
    "instead of a field": lambda c: (
        ENCODING + b")\x81}" + plain("name") + b"cposix\nsystem\n(" + plain(c) + b"tRsb"
    ),
    "a bare function": lambda c: b"cbuiltins\neval\n",
    "another class of tiktoken": lambda c: b"ctiktoken.load\nread_file\n(" + plain(c) + b"tR",
    "an opcode that makes objects": lambda c: b"(" + plain(c) + b"iposix\nsystem\n",
    "something outside": lambda c: plain(c) + b"Q",
    "attributes of a function": lambda c: b"c_codecs\nencode\n}b",
    "a call of a holder": lambda c: ENCODING + b")\x81)R",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_of_anything_but_an_encoding_is_refused_and_does_not_run(tmp_path, attack):
    ran, path = tmp_path / "ran", tmp_path / "tokenizer.pkl"
    path.write_bytes(b"\x80\x03" + ATTACKS[attack](f"touch {ran}") + b".")
    with pytest.raises(UnsafeFile, match="tokenizer.pkl is refused: its pickle"):
        tiktoken_pickle.load(path)
    assert not ran.exists()


STATES = {
    "no object": b"}",
    "no state": ENCODING + b")\x81",
    "arguments": ENCODING + plain("a") + b"\x85\x81",
    "a list": ENCODING + b")\x81]b",
    "no fields": ENCODING + b")\x81}b",
    "an unfinished field": ENCODING + b")\x81}" + plain("name") + b"b",
}


@pytest.mark.parametrize("state", STATES)
def test_a_pickle_without_an_encodings_fields_is_refused(tmp_path, state):
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(b"\x80\x03" + STATES[state] + b".")
    with pytest.raises(ValueError, match="tokenizer.pkl is no pickled tiktoken Encoding: .*again"):
        tiktoken_pickle.load(path)


def test_a_file_that_breaks_off_anywhere_is_refused(tmp_path):
    path = tmp_path / "tokenizer.pkl"
    tiktoken_pickle.save(path, FIELDS)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="copy nanochat's tokenizer.pkl again"):
            tiktoken_pickle.load(path)
    with pytest.raises(FileNotFoundError, match="no file .*there.pkl"):
        tiktoken_pickle.load(tmp_path / "there.pkl")


@pytest.mark.parametrize(
    "wrong",
    [
        dict(name=3),
        dict(pat_str=b"a"),
        dict(mergeable_ranks={"a": 0}),
        dict(mergeable_ranks={b"a": True}),
        dict(special_tokens={"a": -1}),
        dict(special_tokens=[("a", 1)]),
    ],
)
def test_fields_that_make_no_encoding_are_not_written(tmp_path, wrong):
    with pytest.raises(ValueError, match=f"its {next(iter(wrong))} "):
        tiktoken_pickle.save(tmp_path / "a.pkl", EncodingFields(**vars(FIELDS) | wrong))
    assert not list(tmp_path.iterdir())


TEXTS = (
    "",
    "Hello, world! 12345",
    "größe\n\n  \tünd 日本語 🙂",
    "<|bos|> is plain text",
    " a" * 50,
)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("checkpoint_*/tokenizer/tokenizer*.pkl"))
def test_tiktoken_unpickles_what_we_write_and_encodes_as_we_do(path, tmp_path):
    tiktoken = needs.package("tiktoken")
    fields = tiktoken_pickle.load(path)
    tiktoken_pickle.save(tmp_path / "ours.pkl", fields)
    theirs = pickle.loads((tmp_path / "ours.pkl").read_bytes())
    ours = Tokenizer(dict(fields.mergeable_ranks), fields.pat_str, dict(fields.special_tokens))
    assert isinstance(theirs, tiktoken.Encoding) and theirs.n_vocab == ours.get_vocab_size()
    for text in TEXTS:
        assert theirs.encode_ordinary(text) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    for token, i in fields.special_tokens.items():
        assert theirs.encode_single_token(token) == ours.encode_special(token) == i
    for protocol in range(2, 6):
        (tmp_path / "theirs.pkl").write_bytes(pickle.dumps(theirs, protocol))
        assert tiktoken_pickle.load(tmp_path / "theirs.pkl") == fields
