"""What `data add` says of a text: its scripts, and the vocabulary and pattern that suit it."""

import random

import pytest

from nanochat_jax import devices, pipeline
from nanochat_jax.config import paths
from nanochat_jax.data import shards, trial, writing
from nanochat_jax.tokenizer import Tokenizer
from scripts import data

ENGLISH = "the old mill by the river turns when wind and water are awake and asleep".split()
HINDI = "यह पुरानी किताब नदी के किनारे वाली दुकान में मिली थी और उसकी कहानी बहुत सुंदर है".split()


def prose(words: list[str], count: int = 12_000, seed: int = 0) -> str:
    """Sentences of these words, and of words made of two of them, in any order."""
    rng = random.Random(seed)
    word = lambda: rng.choice(words) + (rng.choice(words) if rng.random() < 0.3 else "")
    return " ".join(word() for _ in range(count))


@pytest.mark.parametrize(
    ("characters", "script"),
    [
        ("aéßſ", "Latin"), ("ж", "Cyrillic"), ("λ", "Greek"), ("ع", "Arabic"), ("א", "Hebrew"),
        ("कि\u094d", "Devanagari"), ("ทที่", "Thai"), ("漢々", "Han"), ("かﾟ"[:1], "Hiragana"),
        ("カーｶ", "Katakana"), ("한", "Hangul"), ("ក", "Khmer"), ("Ａ", "Latin"), ("அி", "Tamil"),
        ("1٣½四"[:3], "numbers"), ("।,—", "punctuation"), ("+🙂", "signs"),
        (" \n\u200d\u200b", "blanks"), ("\ue000\u0378", "others"), ("\u0301", "accents apart"),
    ],
)  # fmt: skip
def test_a_character_is_of_its_script(characters, script):
    assert {writing.script_of(c) for c in characters} == {script}


def test_shares_are_of_characters_and_tokens_are_counted_by_script():
    plain = Tokenizer({bytes([i]): i for i in range(256)})
    rows = {row.script: row for row in writing.table(["ab жж"] * 20, plain)}
    assert {name: row.share for name, row in rows.items()} == {
        "Latin": 0.4, "blanks": 0.2, "Cyrillic": 0.4,
    }  # fmt: skip
    assert {row.bytes_per_token for row in rows.values()} == {1.0}
    # A token of the blank before a word is the word's.
    joined = Tokenizer.train([" жж"] * 9, 268)
    rows = {row.script: row for row in writing.table(["ab жж"] * 20, joined)}
    assert rows["Cyrillic"].bytes_per_token == 5.0 and rows["blanks"].bytes_per_token == 0.0


def test_what_is_rare_is_one_row_and_nothing_is_lost():
    plain = Tokenizer({bytes([i]): i for i in range(256)})
    rows = writing.table(["a" * 3000, "ж\ue000λ"], plain)
    assert [row.script for row in rows] == ["Latin", "others"]
    assert sum(row.share for row in rows) == pytest.approx(1)
    half = writing.table(["ab", "\ue000\ue001"], plain)
    assert [(row.script, row.share) for row in half] == [("Latin", 0.5), ("others", 0.5)]


def test_a_smaller_vocabulary_is_the_beginning_of_a_larger():
    texts = [prose(HINDI), prose(ENGLISH)]
    assert Tokenizer.train(texts, 600).smaller(400) == Tokenizer.train(texts, 400)


def test_marks_are_suggested_where_vowels_are_marks_and_only_there():
    hindi, english = trial.of([prose(HINDI)]), trial.of([prose(ENGLISH)])
    assert hindi.pattern == "marks" and english.pattern == "nanochat"
    both = hindi.bytes_per_token
    assert all(both["marks"][size] > 1.2 * both["nanochat"][size] for size in both["nanochat"])
    assert english.bytes_per_token.keys() == {"nanochat"}
    assert trial.of([prose(ENGLISH, 300)]) is None


def test_a_larger_model_is_given_no_smaller_vocabulary():
    sizes = {1024: 3.0, 2048: 3.6, 4096: 4.1, 8192: 4.5, 16384: 4.8, 32768: 4.95}
    found = trial.Trial((), {"nanochat": sizes}, {})
    # By hand, in millions of FLOPs a byte: of depth 4, width 192, rows of 256 at 2,048 ids 4.260,
    # at 4,096 4.316; of depth 20, width 1280, rows of 2048 at 16,384 648.8, at 32,768 654.6.
    assert found.vocab_size("configs/cpu-text.toml") == 2048
    assert found.vocab_size("configs/d20.toml") == 16384


@pytest.mark.parametrize("config", trial.CONFIGS)
def test_the_shapes_are_those_of_the_configs(config):
    made = pipeline.configure("base", ["--config", str(pipeline.CONFIGS.parent / config)])
    shape = (made.depth, made.aspect_ratio, made.head_dim, made.max_seq_len)
    assert shape == trial.CONFIGS[config]


def test_the_sample_comes_from_everywhere_and_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "SAMPLE_CHARACTERS", 40_000)
    for number in range(4):
        texts = [f"{number} " + "x" * 3000] * 1500
        shards.write_shard(paths.base_data(tmp_path) / shards.shard_name(number), texts)
    found = trial.sample(tmp_path)
    assert {text[0] for text in found} == set("012")  # the last validates
    assert 36_000 < sum(map(len, found)) <= 40_000


@pytest.fixture
def told(base_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(devices, "machine_kind", lambda: "cpu")

    def add(text: str) -> list[str]:
        (tmp_path / "text.txt").write_text(text, encoding="utf-8")
        assert data.main(["add", str(tmp_path / "text.txt")]) == 0
        return capsys.readouterr().out.splitlines()[1:]

    return add


def test_add_says_how_a_text_is_written_and_what_to_type(told, base_dir):
    Tokenizer.train([prose(ENGLISH)], 300).save(paths.tokenizer(base_dir))
    lines = told(
        prose(HINDI).replace(" ", "\n")
    )  # lines alone, no paragraph: documents all the same
    assert lines[1].split()[0] == "Devanagari" and float(lines[1].split()[2]) > 5
    assert any("the tokenizer that is there, of 300 ids: 1.0" in line for line in lines)
    assert not any("NFC" in line for line in lines)
    program, *argv = lines[-1].removeprefix("next: python -m scripts.").split()
    assert program == "speedrun" and argv[-2:] == ["--pattern", "marks"]
    handed = pipeline.layers_of("speedrun", argv).handed_on()
    assert handed == {"vocab_size": int(argv[3]), "pattern": "marks"}


def test_what_is_told_of_a_text_is_of_the_characters_that_are_named(told, monkeypatch):
    monkeypatch.setattr(trial, "sample", lambda root: ["a b "] * 500)  # nothing stands between them
    head, *rows = told(prose(ENGLISH))
    assert head.startswith("how 200 characters of it are written, a tenth of a sample; ")
    assert [row.split()[:2] for row in rows[:2]] == [["Latin", "50.0%"], ["blanks", "50.0%"]]


def test_a_damaged_tokenizer_does_not_make_an_import_fail(told, base_dir):
    Tokenizer.train([prose(ENGLISH)], 300).save(paths.tokenizer(base_dir))
    (paths.tokenizer(base_dir) / "meta.json").write_text("{")
    lines = told(prose(HINDI))
    assert any("the tokenizer that is there cannot be read: " in line for line in lines)
    assert lines[-1].startswith("next: ")


def test_text_out_of_normal_form_is_told_and_stays(told, base_dir):
    lines = told(prose([*ENGLISH, "cafe\u0301"]))
    assert any(" of the words, such as " in line and "NFC" in line for line in lines)
    assert "cafe\u0301" in "".join(trial.sample(base_dir))


def test_a_config_for_gpus_is_named_where_there_are_some_and_much_text(base_dir, monkeypatch):
    shards.write_shard(paths.base_data(base_dir) / shards.VAL_NAME, [prose(ENGLISH, 9000)] * 2)
    config = lambda machine: trial.told(base_dir, machine)[-1].split()[5]
    assert config("gpu") == config("cpu") == "configs/cpu-text.toml"
    monkeypatch.setattr(trial, "LARGE", 80_000)  # of 90,000 or so
    assert config("gpu") == "configs/d20.toml" and config("cpu") == "configs/cpu-text.toml"
    monkeypatch.setattr(trial, "LARGE", 150_000)
    assert config("gpu") == "configs/cpu-text.toml"


def test_of_too_little_text_nothing_is_suggested(told):
    assert told("A note.") == ["too little text to say which vocabulary would suit it"]
