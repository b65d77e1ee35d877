"""Tables of sentences: what is wrong with one is said with its place; nothing is read too early."""

import pytest

from nanochat_jax.data.phrases import Phrases


@pytest.fixture
def phrases(tmp_path, monkeypatch):
    """Makes phrases of a TOML text, in a package of their own."""
    package = tmp_path / f"of_{tmp_path.name}"  # a name that no other test has imported
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def make(text, fields, **more):
        (package / "texts.toml").write_text(text, encoding="utf-8")
        return Phrases(package.name, "texts.toml", fields, **more)

    return make


def test_texts_lists_and_tables_are_read_with_what_is_known_put_in(phrases):
    text = 'name = "{who} of {place}"\nmany = ["ü", "{who}"]\n[deep.er]\nkey = "{place}"\n'
    fields = {"name": "who", "many": "who", "deep": ""}
    made = phrases(text, fields, known={"place": "Oslo", "lists": ["are passed over"]})
    assert dict(made) == {
        "name": "{who} of Oslo", "many": ["ü", "{who}"], "deep": {"er": {"key": "Oslo"}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('a = "{nme}"', r"a names \['nme'\] in braces; known: name"),
        ('a = ["x", "{name"]', r"a\[1\], '{name'"),
        ("a = [1]", r"a\[0\] is 1; expected texts"),
        ("a = []", r"a is \[\]"),
        ('b = "x"', r"keys \['a', 'b'\] are missing or unknown"),
    ],
)
def test_a_wrong_table_is_refused_with_file_and_key(phrases, text, reason):
    made = phrases(text, {"a": "name"})
    with pytest.raises(ValueError, match=rf"texts\.toml: .*{reason}"):
        made["a"]


def test_nothing_is_read_before_it_is_used(phrases):
    made = phrases("no TOML", {"a": ""})
    phrases('a = "later"', {"a": ""})
    assert made["a"] == "later"
