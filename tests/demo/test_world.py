"""The embedded world is the same every time, large enough, and honest about what it holds out."""

import collections
import hashlib
import itertools
import json
import random
import re

import pytest

from nanochat_jax.data import shards
from nanochat_jax.demo import (
    chats,
    corpus,
    examination,
    facts,
    questions,
    sentences,
    stories,
    words,
)
from nanochat_jax.demo.documents import DOCUMENTS, documents

PEOPLE = facts.make_people(0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "world_data"
    corpus.write_world(folder)
    return folder


def probes_of(world):
    return [json.loads(x) for x in (world / "probes.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def qa_pairs(world):
    """Every user turn and every answer of all training conversations."""
    turns = []
    for name in ("mid", "sft", "val"):
        for line in (world / f"conversations_{name}.jsonl").read_text().splitlines():
            messages = json.loads(line)["messages"]
            pairs = zip(messages[::2], messages[1::2], strict=True)
            turns += [(q["content"], a["content"]) for q, a in pairs]
    return turns


def test_the_world_is_the_same_text_everywhere_and_for_good(world):
    """The demo's scores are of this text: whoever changes it publishes new ones."""
    digest = hashlib.sha256()
    for text in (t for group in shards.iter_documents(shards.list_shards(world)) for t in group):
        digest.update(text.encode() + b"\0")
    for path in sorted(world.glob("*.jsonl")):
        digest.update(path.read_bytes())
    assert digest.hexdigest() == "2591a43d45e4c70f2da0886145dbfc1fe7ab75b6a188397e66376ae406289e37"


@pytest.mark.parametrize(
    "phrases",
    [
        facts.WORLD,
        sentences.SENTENCES,
        questions.QUESTIONS,
        stories.STORIES,
        DOCUMENTS,
        examination.FIRST_MINUTE,
    ],
    ids=["world", "sentences", "questions", "stories", "documents", "first_minute"],
)
def test_every_table_of_content_is_in_the_package_and_well_formed(phrases):
    assert all(phrases[key] for key in phrases)


def test_what_is_asked_of_probes_has_phrasings_that_no_conversation_has():
    tables = ("outside", "beyond", "lands", "spell", "count")
    for table in (*(questions.QUESTIONS[name] for name in tables), sentences.SENTENCES["wraps"]):
        train, dev, final = (set(table[split]) for split in ("train", "dev", "final"))
        assert not train & dev and not train & final and not dev & final
    for table in ("statements", "direct", "clauses"):
        assert set(sentences.SENTENCES[table]) == set(facts.ATTRIBUTES)


@pytest.mark.slow
def test_it_holds_eight_megabytes_and_no_document_twice(world):
    texts = [t for group in shards.iter_documents(shards.list_shards(world)) for t in group]
    assert sum(map(len, texts)) >= 8_000_000
    assert len(set(texts)) == len(texts)


def test_validation_is_the_last_shard_and_shares_no_document_with_the_others(world):
    *train, val = shards.list_shards(world)
    seen = {t for group in shards.iter_documents(train) for t in group}
    held = [t for group in shards.iter_documents([val]) for t in group]
    assert len(held) == corpus.VAL_DOCUMENTS and not seen & set(held)


def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    first = lambda seed: list(itertools.islice(documents(facts.make_people(seed), seed), 50))
    assert first(3) == first(3) != first(4)


def test_facts_held_out_are_asked_in_no_conversation(qa_pairs):
    hidden = [(p, k) for p in PEOPLE for k in facts.ATTRIBUTES if facts.held_out(p, k)]
    assert len(hidden) >= 20
    answers = collections.Counter(a for _, a in qa_pairs if isinstance(a, str))
    for person, attribute in hidden:
        statement = sentences.statement(person, attribute)
        assert not [a for a in answers if statement in a], statement


def test_no_probe_was_ever_a_question_of_a_conversation(world, qa_pairs):
    trained = {q for q, _ in qa_pairs}
    for probe in probes_of(world):
        assert probe["question"] not in trained or probe["kind"] == "first minute"


def test_words_and_numbers_of_the_probes_are_held_out(world, qa_pairs):
    sums = {a[0]["text"] for _, a in qa_pairs if isinstance(a, list)}
    counted = {call.split(".")[0] for call in sums if ".count(" in call}
    spelled = {a for _, a in qa_pairs if isinstance(a, str)}
    probes = probes_of(world)
    for probe in probes:
        if probe["kind"] == "arithmetic":
            assert probe["tool"] not in sums
        if probe["kind"] == "spelling":
            assert probe["answers"][0] not in spelled
        if probe["kind"] == "letter count":
            assert probe["tool"].split(".")[0] not in counted


def test_words_that_probes_ask_for_are_spelled_in_documents_as_a_chat_would(world):
    text = " ".join(t for group in shards.iter_documents(shards.list_shards(world)) for t in group)
    for probe in probes_of(world):
        if probe["kind"] == "spelling":
            assert text.count(probe["answers"][0]) >= 3, probe


def test_conversations_spell_thousands_of_words(qa_pairs):
    """Of few words a model learns the letters by heart, and not how to find another's."""
    spelled = {a for _, a in qa_pairs if isinstance(a, str) and a.startswith("It is spelled")}
    assert len(spelled) > 3000


def test_people_type_in_lower_case_and_without_a_full_stop_now_and_then(qa_pairs):
    asked = [q for q, _ in qa_pairs]
    assert 0.1 < sum(q == q.lower() for q in asked) / len(asked) < 0.3
    assert "hello" in asked and "thanks" in asked and "" in asked


def test_every_kind_has_enough_probes_in_both_sets(world):
    probes = probes_of(world)
    counts = collections.Counter((p["set"], p["kind"]) for p in probes)
    assert len(counts) == 17 and min(counts.values()) >= 40
    questions_of = lambda s: {p["question"] for p in probes if p["set"] == s}
    assert not questions_of("dev") & questions_of("final")


def test_the_words_of_held_out_facts_are_met_in_some_conversation(qa_pairs):
    text = " ".join(q for q, _ in qa_pairs)
    for person in PEOPLE:
        for attribute in ("job", "pet_name", "home"):
            assert person.facts[attribute] in text


def test_a_calculator_answer_repeats_what_the_tool_returned():
    rng = random.Random(0)
    for _ in range(200):
        made = questions.arithmetic(rng, PEOPLE, "train")
        python, output, text = made.answer
        assert str(eval(python["text"])) == output["text"]  # noqa: S307 (our own digits)
        assert text["text"] == f"That makes {output['text']}."


def test_conversations_are_valid_and_alternate():
    from nanochat_jax.tasks.conversation import checked_messages

    for conversation in itertools.islice(chats.conversations(PEOPLE, 5), 300):
        checked_messages(conversation)


def test_a_story_names_its_topic_at_once():
    rng = random.Random(1)
    for _ in range(100):
        made = questions.story_request(rng, PEOPLE, "train")
        about = re.search(r"story about (.+?)[.?,]", made.text)
        assert not about or f"about {about[1]}" in made.answer.split(".")[0]


def test_invented_words_held_out_are_not_among_the_others():
    rng = random.Random(2)
    never = {words.invented(rng, never=True) for _ in range(200)}
    assert not never & {words.invented(rng) for _ in range(2000)}
