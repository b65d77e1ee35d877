"""Identity conversations in another language: all its words come from one file, held to English."""

import json
import pathlib
import re
import tomllib

import pytest

from nanochat_jax.identity import language, make, prompts, templates
from nanochat_jax.identity.facts import Fact, Identity, parse, read_identity
from scripts import data

RUSSIAN = pathlib.Path(__file__).resolve().parents[2] / "docs" / "your-language" / "russian.toml"
FACTS = ["creator: Ada", "home: in Oslo", "I like maps.", "languages: English"]


@pytest.fixture
def english(tmp_path, capsys):
    path = tmp_path / "new" / "mine.toml"
    assert data.main(["templates", "--out", str(path)]) == 0
    assert "translate what stands in quotes" in capsys.readouterr().out
    return path


def test_the_file_that_is_written_says_the_same_as_english(english):
    read = language.read(english)
    ours, theirs = (Identity("Nemo", parse(FACTS, lang), lang) for lang in (language.ENGLISH, read))
    for i in range(300):
        assert templates.conversation(ours, i) == templates.conversation(theirs, i)
        assert prompts.request(ours, i) == prompts.request(theirs, i)


def test_a_file_that_is_there_is_not_written_over(english, capsys):
    before = english.read_bytes()
    with pytest.raises(SystemExit):
        data.main(["templates", "--out", str(english)])
    assert "is there already" in capsys.readouterr().err and english.read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "to", "says"),
    [
        ("welcome = ", "welcom = ", "missing welcome; unknown welcom; .*data templates --out"),
        ('"I am {name}."', '"I am {nme}."', r"name_answers, 'I am {nme}.*expected {name} in it"),
        ('"I speak {value}."', '"I speak."', "special.speech.answers, 'I speak.'.*{value}"),
        ("subjects = [", "subject = [", "prompts: missing subjects; unknown subject"),
        ('full_stop = "."', 'full_stop = ["."]', r"full_stop is \['.'\]; expected a text"),
        ('spell = ["How do you spell your name?", ', 'spell = [1, ', "spell holds 1; expected"),
        ('letters_apart = ", "', "letters_apart = ", "is no TOML: .*line"),
        ('"[^su]s$"', '"[^su"', "many_ends, .* is no regular expression"),
        ('"Thank you."', '"Thank {you}."', r"names \['you'\] in braces; known: none"),
        ('keys = ["language", "languages"]', 'words = ["a"]', "special.speech is .*not_nouns"),
        ('be = "are"\n', "", "many: missing be; "),
        ('    "Thanks!",', '    "",', "thanks holds an empty text; .*'Thanks!'"),
        ('"Who made you?"', '" "', "special.maker.questions holds an empty text"),
        ('"a polite stranger"', '""', "prompts: persons holds an empty text"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_with_its_place(english, changed, to, says):
    text = english.read_text(encoding="utf-8")
    assert changed in text
    english.write_text(text.replace(changed, to), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"(?s)mine\.toml.*{says}"):
        language.read(english)


def test_without_a_file_the_message_says_how_to_begin(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data templates --out my-language\.toml"):
        language.read(tmp_path / "none.toml")


def test_the_russian_example_speaks_russian_alone(tmp_path):
    (tmp_path / "facts.txt").write_text("мой создатель: Ада.\nЯ люблю карты", encoding="utf-8")
    out = tmp_path / "out.jsonl"
    typed = ["identity", "--templates", str(RUSSIAN), "--name", "Немо", "--count", "300"]
    assert data.main([*typed, "--facts", str(tmp_path / "facts.txt"), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "Мой создатель – Ада." in text and "Н, е, м, о" in text and "Я люблю карты." in text
    said = " ".join(m["content"] for line in text.splitlines() for m in json.loads(line))
    names = "|".join(tomllib.loads(RUSSIAN.read_text("utf-8"))["others"])
    assert not re.search("[A-Za-z]", re.sub(names, "", said, flags=re.IGNORECASE))


def test_another_file_makes_other_conversations_of_the_same_facts(english, tmp_path):
    words = english.read_text("utf-8").replace('"I am {name}."', '"Call me {name}."')
    english.write_text(words, encoding="utf-8")
    who = Identity("Nemo", parse(FACTS))
    make.from_templates(tmp_path / "out.jsonl", who, 30)
    other = Identity("Nemo", parse(FACTS), language.read(english))
    assert make.from_templates(tmp_path / "out.jsonl", other, 60).new == 30
    assert "Call me Nemo." in (tmp_path / "out.jsonl").read_text("utf-8")


def test_facts_are_read_with_the_words_of_their_language():
    hindi = {"full_stop": "।", "no_key": "मैं हम", "not_of_key": "मेरा मेरी"}
    lang = language.Language(dict(language.ENGLISH.templates) | hindi, language.ENGLISH.prompts)
    lines = ["निर्माता: अदा।", "मेरी भाषा: हिन्दी", "मैं कहता हूँ: नमस्ते", "मुझे नक़्शे पसंद हैं", "创造者：艾达"]
    assert parse(lines, lang) == (
        Fact("निर्माता", "अदा"), Fact("भाषा", "हिन्दी"), Fact("", "मैं कहता हूँ: नमस्ते।"),
        Fact("", "मुझे नक़्शे पसंद हैं।"), Fact("创造者", "艾达"),
    )  # fmt: skip


def test_capital_letters_of_a_language_are_no_others():
    english = language.ENGLISH.templates
    maker = {"questions": ["Wer?"], "answers": ["Von {value}."], "keys": ["Schöpfer", "STRASSE"]}
    german = {"no_key": "Ich Wir", "not_of_key": "Mein Meine", "special": {"maker": maker}}
    lang = language.Language(dict(english) | german, language.ENGLISH.prompts)
    facts = parse(["Mein Schöpfer: Ada", "Ich sage: Hallo", "Straße: am Ufer"], lang)
    assert facts == (
        Fact("schöpfer", "Ada"), Fact("", "Ich sage: Hallo."), Fact("straße", "am Ufer"),
    )  # fmt: skip
    said = [templates.sentence(Identity("Nemo", facts, lang), fact) for fact in facts]
    assert said == ["Von Ada.", "Ich sage: Hallo.", "Von am Ufer."]


def test_what_stands_between_letters_or_sentences_may_be_nothing(english):
    text = english.read_text("utf-8").replace('sentences_apart = " "', 'sentences_apart = ""')
    english.write_text(text.replace('letters_apart = ", "', 'letters_apart = ""'), "utf-8")
    assert language.read(english).templates["sentences_apart"] == ""


def test_others_must_have_another_name_than_the_model(tmp_path):
    lang = language.Language(
        dict(language.ENGLISH.templates) | {"others": ["NEMO"]}, language.ENGLISH.prompts
    )
    (tmp_path / "facts.txt").write_text("home: Oslo")
    with pytest.raises(ValueError, match="others, .* names Nemo alone"):
        read_identity("Nemo", tmp_path / "facts.txt", lang)
    assert read_identity("Ada", tmp_path / "facts.txt", lang).name == "Ada"


def test_a_name_is_spelled_letter_by_letter_with_the_marks_at_each():
    assert templates.letters("नीमो") == ["नी", "मो"] and templates.letters("Zoe\u0308") == [
        "Z", "o", "e\u0308",
    ]  # fmt: skip
