"""What was read, by a checkpoint's position, is what the loaders gave; and what is found in it."""

import dataclasses
import json

import numpy as np
import pytest

from nanochat_jax import report
from nanochat_jax.checkpoint import prune, store
from nanochat_jax.config import paths
from nanochat_jax.config.program import Eval
from nanochat_jax.config.stages import BaseTrain, RLTrain, SFTTrain
from nanochat_jax.config.values import flatten
from nanochat_jax.data import chats, importer, ledger, shards
from nanochat_jax.data.chats import mid_loader, sft_loader
from nanochat_jax.data.loader import pretraining_loader
from nanochat_jax.evals import run as evals
from nanochat_jax.train import chat, contamination, rollouts, was_read
from scripts import eval as program
from tests.evals import core_bundles
from tests.serve.world import BYTES, random_model

T = 64


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three shards of 2,600 short documents each: three row groups a shard."""
    folder = tmp_path_factory.mktemp("shards")
    paths_ = [folder / shards.shard_name(i) for i in range(3)]
    for i, path in enumerate(paths_):
        shards.write_shard(path, [f"{i} {n} " * (1 + n % 3) for n in range(2600)])
    return paths_


@pytest.mark.parametrize("kind", ["stream", "bestfit"])
@pytest.mark.parametrize(("ranks", "pulls"), [(1, 0), (1, 150), (2, 151), (1, 600)])
def test_documents_that_were_read_are_those_of_the_rows(files, kind, ranks, pulls):
    rows = pretraining_loader(
        files, BYTES, 8, T, kind=kind, ranks=ranks, prefetch=0, buffer_size=99
    )
    batches, given = iter(rows), set()
    for _ in range(pulls):
        given |= {piece.source[1:] for row in next(batches).pieces for piece in row}
    streams = batches.get_state()["streams"]
    read = {
        (file, group, doc)
        for file in range(3)
        for group, size in enumerate((1024, 1024, 552))
        for doc in was_read.taken_documents(streams, file, group, size)
    }
    # The last token of a row is a target alone; in a stream the next row begins with it.
    assert given >= read and len(given - read) <= ranks
    assert len(read) == 3 * 2600 if pulls == 600 else pulls == 0 or len(read) < 3 * 2600


class Chats:
    """Conversations of several lengths."""

    def __len__(self):
        return 90

    def __getitem__(self, i):
        asked = {"role": "user", "content": f"{i}?" * (1 + i % 9)}
        return {"messages": [asked, {"role": "assistant", "content": "yes"}]}


@pytest.mark.parametrize(("make", "options"), [
    (mid_loader, {}), (sft_loader, {"kind": "padded"}),
    (sft_loader, {"kind": "bestfit", "buffer_size": 9}),
])  # fmt: skip
@pytest.mark.parametrize(("ranks", "pulls"), [(1, 0), (1, 5), (2, 7), (1, 60)])
def test_chats_that_were_read_are_those_of_the_rows(make, options, ranks, pulls):
    batches = iter(make(Chats(), BYTES, 2, 128, ranks=ranks, prefetch=0, **options))
    given = {p.source for _ in range(pulls) for row in next(batches).pieces for p in row}
    read = set(was_read.taken_chats(batches.get_state()["streams"], 90))
    assert given >= read and len(given - read) <= ranks
    assert pulls < 60 or read == set(range(90))


def exam(i):
    words = " ".join(f"w{i}x{k}" for k in range(8))
    return {
        "question": f"Which of these is said about {words}?",
        "choices": {"text": ["one", "two", "three", f"four {i}"], "label": list("ABCD")},
        "answerKey": "ABCD"[i % 4],
    }  # fmt: skip


def said(i):
    return exam(i)["question"].upper().replace(" ", ", ")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base model that read the first shard alone, in which questions 3 and 5 stand, and not the
    second with question 7; an SFT model of it, whose chats ask question 9; and its answers."""
    root = tmp_path_factory.mktemp("base")
    text = lambda i: [f"Nothing of note on day {n}. {said(i) if n == 6 else ''}" for n in range(40)]
    for number, i in enumerate((3, 7, 8)):
        also = [f"Once more: {said(5)} Well."] * (i == 3)
        shards.write_shard(paths.base_data(root) / shards.shard_name(number), [*text(i), *also])
    turns = lambda q: [{"role": "user", "content": q}, {"role": "assistant", "content": "A"}]
    lines = [turns(f"{said(9)} ({n})" if n == 2 else f"Day {n}?") for n in range(60)]
    (root / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    importer.add_conversations(root, [root / "c.jsonl"])
    BYTES.save(paths.tokenizer(root))
    tasks = root / "tasks" / "arc" / "ARC-Easy"
    tasks.mkdir(parents=True)
    (tasks / "test.jsonl").write_text("\n".join(json.dumps(exam(i)) for i in range(30)))
    model = random_model(sequence_len=256, n_layer=1)
    data = shards.find_shards(root)
    batches = iter(pretraining_loader(data.train, BYTES, 2, T, prefetch=0))
    while next(batches).pieces[-1][-1].source.file == 0:
        state = batches.get_state()
    common = {"model_config": dataclasses.asdict(model.cfg), "tokenizer_hash": BYTES.hash}
    meta = {"stage": "base", "config": flatten(BaseTrain()), "data": ledger.of_shards(data)}
    store.save(paths.checkpoints(root, "base") / "d1", 9, model.params, common | meta, loader=state)
    config = dataclasses.replace(SFTTrain(), mixture=("conversations",))
    mixture = chat.mixture(config, root, "train")
    meta = {
        "stage": "sft", "config": flatten(config), "source": {"path": "base_checkpoints/d1/000009"},
        "data": ledger.of_mixture(mixture, chat.files(config, root), root),
    }  # fmt: skip
    store.save(paths.checkpoints(root, "sft") / "d1", 7, model.params, common | meta)
    return root


@pytest.fixture
def look(base, monkeypatch, capsys):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(base))

    def run(*argv):
        assert program.main(["contamination", "--task-data", str(base / "tasks"), *argv]) == 0
        return capsys.readouterr().out

    return run


def test_the_rows_that_were_trained_on_are_named_and_scored_apart(base, look):
    config = Eval(source="sft", tasks="ARC-Easy", task_data=str(base / "tasks"))
    section = evals.run(config, base)
    report.write(base, section)
    kept = base / "eval" / "sft_d1_000007" / "chat" / "ARC-Easy.jsonl"
    answers = sorted(
        map(json.loads, kept.read_text().splitlines()[1:]), key=lambda x: x["question"]
    )
    right = [answer["correct"] for answer in answers]
    order = [int(answer["asked"].split("about w")[1].split("x")[0]) for answer in answers]
    others = [mark for mark, i in zip(right, order, strict=True) if i not in (3, 5, 9)]
    out = look("-i", "sft")
    assert "| ARC-Easy | 30 | 3 of 30 | 10.0 (3.5 to 25.6) |" in out
    all_score, other_score = (100 * sum(x) / len(x) for x in (right, others))
    assert f"score {all_score:.1f} %, of the other rows {other_score:.1f} % (" in out
    assert "of conversations (how far it came is not told, so all are taken)\n" in out
    assert "- sft d1, step 7: " in out and "- base d1, step 9: 4" in out
    row = order.index(9)
    assert f"- ARC-Easy, row {row}: `which of these is said about w9x0" in out
    assert " in sft d1, step 7: conversations row " in out
    assert "shard_00000.parquet (sha256:" in out and "shard_00001" not in out
    text = report.generate(base, base).read_text()
    assert "- SFT, ARC-Easy: 3 of 30 rows (10.0 %) share 13 words in a row" in text
    assert "## Contamination sft" in text
    assert "3 of 30 rows" in (base / "report" / "report.html").read_text()


def test_the_base_model_has_read_no_chat_and_core_is_looked_for_too(base, look):
    rows = [{"context": f"Context: {said(i)}", "continuation": "yes"} for i in (3, 7)]
    core_bundles.write(base / "tasks" / "core_eval", {"t": ("language_modeling", 0, 0.0, rows)})
    out = look("-i", "base")
    assert "| t | 2 | 1 of 2 |" in out and "| ARC-Easy | 30 | 2 of 30 |" in out
    assert look("-i", "base", "-a", "core", "--threads", "2").count("| t | 2 | 1 of 2 |") == 1


def test_on_the_demo_chatcore_is_fetched_where_it_is_named_alone(tmp_path, monkeypatch):
    asked = []

    def build_one(name, root, task_data, fetch):
        asked.append(fetch)
        raise FileNotFoundError(name)

    monkeypatch.setattr(contamination, "build_one", build_one)
    probe = {"set": "final", "kind": "animal", "question": "what does it say?", "answers": ["moo"]}
    paths.world_data(tmp_path).mkdir()
    (paths.world_data(tmp_path) / "probes.jsonl").write_text(json.dumps(probe))
    assert list(contamination.sought("", Eval(), tmp_path)) == ["probe: animal"]
    assert asked and not any(asked)
    asked.clear()
    with pytest.raises(FileNotFoundError, match="--task-data DIR"):
        contamination.sought("ChatCORE", Eval(), tmp_path)
    assert asked and all(asked)


def test_without_a_world_there_are_no_probes_to_look_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="world_data holds none; leave -a probes out"):
        contamination.sought("probes", Eval(), tmp_path)


def test_what_is_not_known_is_said_and_what_has_changed_is_refused(base, look, capsys):
    saved = store.find(paths.checkpoints(base, "base") / "d1")
    own = {k: v for k, v in saved.meta.items() if k not in ("data", "stage")}
    store.save(
        paths.checkpoints(base, "base") / "d2", 0, saved.params(), own | {"imported": {"a": 1}}
    )
    assert "d2, step 0: brought in from elsewhere: what it was trained on is not known" in look(
        "-i", "base", "-g", "d2"
    )
    path = paths.conversations(base, "train")
    kept = path.read_text()
    path.write_text(kept.replace("Day 3?", "Day 33?"))
    for argv, told in (
        (["-i", "sft"], "train.jsonl has changed since the run read it"),
        (["-i", "base", "-a", "ARK"], "unknown task 'ARK'"),
        (["-i", "base", "--ngram", "0"], "ngram is 0; set it to 1 or more"),
    ):
        with pytest.raises(SystemExit):
            look(*argv)
        assert told in capsys.readouterr().err
    path.write_text(kept)


def step(root, place, value, source=None):
    """A step of one number, of which nothing is known but what it was born from."""
    folder = root / place
    meta = {"stage": "sft"} | ({"source": source} if source else {})
    store.save(folder.parent, int(folder.name), {"a": np.full(3, value)}, meta)
    return store.find(folder)


def searched(saved, root):
    return [(s.title.removeprefix(f"{root}/"), "is gone" in s.told)
            for s in was_read.stages(saved, root)]  # fmt: skip


def test_a_step_that_took_its_parents_place_finds_it_aside(tmp_path):
    place = "chatsft_checkpoints/d2/000004"
    born = prune.source_of(tmp_path, step(tmp_path, place, 1.0))
    (moved := tmp_path / "chatsft_checkpoints" / ".old" / "d2-1").parent.mkdir()
    (tmp_path / place).parent.rename(moved)
    mine = step(tmp_path, place, 2.0, born)
    assert searched(mine, tmp_path) == [("sft d2, step 4", False), ("sft d2-1, step 4", False)]
    step(tmp_path, "chatsft_checkpoints/.old/d2-1/000004", 3.0)  # trained anew
    assert searched(mine, tmp_path) == [("sft d2, step 4", False), (place, True)]


def test_a_parent_of_an_earlier_version_is_the_step_in_its_place_unless_it_was_seen(tmp_path):
    first, second = "base_checkpoints/a/000004", "chatsft_checkpoints/a/000004"
    step(tmp_path, first, 1.0)
    mine = step(tmp_path, second, 2.0, {"path": first})
    assert searched(mine, tmp_path) == [("sft a, step 4", False)] * 2
    mine = step(tmp_path, second, 2.0, {"path": second})
    assert searched(mine, tmp_path) == [("sft a, step 4", False), (second, True)]


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize(("size", "taken"), [(5, (6, 1)), (5, (3, 2)), (7, (0, 9)), (1, (2, 1))])
def test_chats_are_counted_by_the_rule_of_the_cursors(restart, size, taken):
    streams, given = [], set()
    for rank, count in enumerate(taken):
        items = [Chats()[i] for i in range(size)]
        cursor = chats._Cursor(items, BYTES, rank, len(taken), restart=restart)
        given |= {cursor.take()[0] for _ in range(count)}
        streams.append({"cursor": cursor.state()} | ({"taken": count} if restart else {}))
    assert was_read.taken_chats(streams, size) == sorted(given)


def test_of_rl_what_was_asked_is_searched_and_no_answer(tmp_path):
    config = dataclasses.replace(RLTrain(), mixture=("GSM8K",), task_data=str(tmp_path))
    rows = [{"question": f"How many are {i}?", "answer": f"so many #### {i}"} for i in range(9)]
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mixture = rollouts.Questions(config.mixture, tmp_path, "train", str(tmp_path)).mixture
    meta = {
        "stage": "rl", "config": flatten(config),
        "data": ledger.of_mixture(mixture, chat.files(config, tmp_path), tmp_path),
    }  # fmt: skip
    store.save(tmp_path / "chatrl_checkpoints" / "d1", 1, {"a": np.ones(3)}, meta)
    saved = store.find(tmp_path / "chatrl_checkpoints" / "d1")
    (read,) = was_read.stages(saved, tmp_path)
    texts = [text for batch in read.batches for text in batch.texts().to_pylist()]
    assert sorted(texts) == [row["question"] for row in rows]
