"""Tasks by name: which rows a name gives, and the message where there are none."""

import gzip
import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat_jax import tasks

SPLITS = {"gsm8k/train": 7, "gsm8k/test": 5}


def problem(i):
    return {"question": f"how many is {i}?", "answer": f"it is <<{i}+0={i}>>{i}\n#### {i}"}


@pytest.fixture
def data(tmp_path):
    """A folder of task files: GSM8K as JSON lines, SmolTalk as parquet."""
    folder = tmp_path / "data"
    (folder / "gsm8k").mkdir(parents=True)
    for name, count in SPLITS.items():
        lines = "".join(json.dumps(problem(i)) + "\n" for i in range(count))
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "smoltalk").mkdir()
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    rows = [{"messages": turns, "source": str(i)} for i in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "smoltalk" / "train.parquet")
    (folder / "words_alpha.txt").write_text("".join(f"word{i}\r\n" for i in range(200)))
    return str(folder)


def build(names, data, tmp_path, split="train"):
    return tasks.build(names, tmp_path, split, task_data=data)


@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("GSM8K", "train", 7), ("GSM8K", "val", 5), ("GSM8K:3", "train", 3),
        ("GSM8K:2-6", "train", 4), ("GSM8K*4", "train", 28), ("GSM8K:3*2", "train", 6),
        ("GSM8K:test", "train", 5), ("GSM8K:test:2", "val", 2), ("GSM8K:100", "train", 7),
        ("SmolTalk", "train", 4), ("SpellingBee:30", "train", 30), ("SpellingBee:10-30", "val", 20),
        ("SimpleSpelling", "train", 1000), ("SpellingBee:original:9", "val", 9),
    ],
)  # fmt: skip
def test_a_name_says_which_rows_and_how_often(name, split, count, data, tmp_path):
    task = build([name], data, tmp_path, split)
    assert len(task) == count
    assert all("messages" in task[i] for i in range(count))


def test_a_bound_is_of_the_task_s_own_order_before_it_is_mixed(data, tmp_path):
    whole = tasks.build_one("GSM8K:train", tmp_path, task_data=data)
    first = {whole[i]["messages"][0]["content"] for i in range(3)}
    mixed = build(["GSM8K:3", "SmolTalk"], data, tmp_path)
    questions = [mixed[i]["messages"][0]["content"] for i in range(len(mixed))]
    assert {text for text in questions if text != "hi"} == first


def test_validation_is_one_task_after_another(data, tmp_path):
    chain = build(["GSM8K:2", "SpellingBee:3"], data, tmp_path, "val")
    one = tasks.build_one("GSM8K:2", tmp_path, task_data=data)
    assert [chain[i] for i in range(2)] == [one[i] for i in range(2)]


def test_a_bounded_task_keeps_its_name_kind_score_and_reward(data, tmp_path):
    task = tasks.build_one("GSM8K:3", tmp_path, task_data=data)
    assert (task.name, task.kind) == ("GSM8K", "generative")
    right = task[0]["messages"][-1]["content"][-1]["text"]
    assert task.score(task[0], right) == task.reward(task[0], right) == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GSM9K", "did you mean GSM8K"), ("GSM8K:dev", "one of train, test, or a number"),
        ("GSM8K::3", "expected name"), ("identity:x", "a number of rows"),
        ("SpellingBee:other", "one of original, or a number"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_refused_with_the_right_ones(name, message, data, tmp_path):
    with pytest.raises(ValueError, match=message):
        build([name], data, tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ARC-Easy", r"arc/ARC-Easy/train\{.parquet,.jsonl,.jsonl.gz\}.*Hugging Face hub"),
        ("GSM8K:train", "is no folder"), ("identity", "identity_conversations.jsonl"),
        ("SpellingBee", "curl -L -o"), ("conversations", "scripts.data add --conversations"),
        ("documents", "scripts.data --help"),
    ],
)  # fmt: skip
def test_missing_data_are_refused_with_what_to_type(name, message, data, tmp_path):
    folder = data if name == "ARC-Easy" else str(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=message):
        build([name], folder, tmp_path)


def test_the_error_for_a_missing_split_names_those_that_are_there(data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is train\.parquet"):
        build(["SmolTalk"], data, tmp_path, "val")


def test_files_in_the_layout_of_nanochat_s_own_cache_are_read(tmp_path):
    folder = tmp_path / "openai--gsm8k" / "main" / "train"
    folder.mkdir(parents=True)
    for shard in range(2):
        rows = [problem(10 * shard + i) for i in range(3)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet")
    assert len(build(["GSM8K"], str(tmp_path), tmp_path)) == 6


def test_damaged_files_are_named(data, tmp_path):
    (tmp_path / "data" / "gsm8k" / "train.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=r"train\.jsonl\.gz is damaged"):
        build(["GSM8K"], data, tmp_path)
    (tmp_path / "data" / "smoltalk" / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"train\.parquet cannot be read"):
        build(["SmolTalk"], data, tmp_path)


def test_training_on_test_rows_is_warned_of(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        build(["GSM8K:test"], data, tmp_path)
    assert "trains on its test rows" in caplog.text


def test_the_base_directory_s_identity_comes_before_the_folder_s(data, tmp_path):
    line = lambda text: json.dumps(
        [{"role": "user", "content": text}, {"role": "assistant", "content": "I am"}]
    )
    (tmp_path / "data" / "identity_conversations.jsonl").write_text(line("theirs") + "\n")
    assert build(["identity"], data, tmp_path)[0]["messages"][0]["content"] == "theirs"
    (tmp_path / "identity_conversations.jsonl").write_text(line("mine") + "\n")
    assert build(["identity*2"], data, tmp_path)[1]["messages"][0]["content"] == "mine"


def test_what_has_no_row_is_named(data, tmp_path, caplog):
    assert len(build(["GSM8K:5000-6000", "GSM8K"], data, tmp_path)) == SPLITS["gsm8k/train"]
    assert "GSM8K has no row there" in caplog.text
    (tmp_path / "data" / "gsm8k" / "train.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"train\.jsonl holds no row"):
        build(["GSM8K"], data, tmp_path)


def test_hidden_files_beside_rows_are_none(data, tmp_path):
    folder = tmp_path / "data" / "cais--mmlu" / "all" / "dev"
    folder.mkdir(parents=True)
    row = {"question": "?", "choices": list("abcd"), "answer": 1, "subject": "s"}
    pq.write_table(pa.Table.from_pylist([row] * 3), folder / "0000.parquet")
    (folder / "._0000.parquet").write_bytes(b"Mac OS X")
    assert len(build(["MMLU:dev"], data, tmp_path)) == 3
    files = tasks.files(["MMLU:dev", "GSM8K*2"], tmp_path, "train", task_data=data)
    assert [path.name for path in files] == ["0000.parquet", "train.jsonl.gz"]
