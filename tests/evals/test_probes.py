"""The examination is strict: the right words, from the right tool call, and nothing besides."""

import json

import pytest

from nanochat_jax.config.program import Eval
from nanochat_jax.evals.probes import APART, KINDS, ProbeScore, is_right, scores
from nanochat_jax.evals.run import EVALUATIONS, tasks_of
from tests.serve.world import BYTES, spoken, talking_model

PROBE = {"story": None, "tool": None}
SUM = PROBE | {"kind": "arithmetic", "tool": "12+30", "answers": ["That makes 42."]}
FACT = PROBE | {"kind": "fact in chat", "answers": ["Mira works as a cook."]}
SPELL = PROBE | {"kind": "spelling", "answers": ["It is spelled r i v e r."]}
COUNT = PROBE | {
    "kind": "letter count", "tool": "'r i v e r'.count('r')", "answers": ["That is 2."],
}  # fmt: skip
UNKNOWN = PROBE | {"kind": "unknown", "answers": ["I do not know that. I only know Willowmere."]}
EITHER = PROBE | {"kind": "first minute", "answers": ["Hello!", "Ask me."]}
call = lambda expression, output: (
    f"<|python_start|>{expression}<|python_end|><|output_start|>{output}<|output_end|>"
)


@pytest.mark.parametrize(
    ("probe", "reply", "right"),
    [
        (SUM, call("12+30", 42) + "That makes 42.", True),
        (SUM, call("30+12", 42) + "That makes 42.", True),
        (SUM, "That makes 42.", False),
        (SUM, call("12+31", 43) + "That makes 42.", False),
        (SUM, call("12+30", 42) + "That makes 43.", False),
        (SUM, call("40+2", 42) + "That makes 42.", False),
        (SUM, call("12+30", 42) * 2 + "That makes 42.", False),
        (FACT, "Mira works as a cook.", True),
        (FACT, "Mira works as a cook. Mira works as a baker.", False),
        (FACT, "Rosa works as a cook.", False),
        (FACT, "", False),
        (SPELL, "It is spelled r i v e r.", True),
        (SPELL, "It is spelled r i v e.", False),
        (SPELL, "It is spelled r i v e r s.", False),
        (SPELL, call("'r i v e r'.count('r')", 2) + "It is spelled r i v e r.", False),
        (COUNT, call("'r i v e r'.count('r')", 2) + "That is 2.", True),
        (COUNT, "That is 2.", False),
        (COUNT, call("'r i v e t'.count('r')", 1) + "That is 2.", False),
        (COUNT, call("'r i v e r'.count('i')", 1) + "That is 2.", False),
        (COUNT, call("'c a r r y'.count('r')", 2) + "That is 2.", False),
        (UNKNOWN, "I do not know that. I only know Willowmere.", True),
        (UNKNOWN, "I do not know that.", False),
        (UNKNOWN, "I do not know that. Gamon is a baker.", False),
        (UNKNOWN, "Gamon is a baker. I do not know that. I only know Willowmere.", False),
        (EITHER, "Hello!", True),
        (EITHER, "Ask me.", True),
        (EITHER, "Hello! Ask me.", False),
    ],
)
def test_only_the_right_words_after_the_right_tool_call_count(probe, reply, right):
    assert is_right(probe, reply) == right


def test_every_kind_counts_the_same_in_the_mean():
    found = {k: ProbeScore(0, 60) for k in KINDS} | {"first minute": ProbeScore(60, 60)}
    found["identity"] = ProbeScore(10, 10)
    *kinds, mean = scores(found)
    assert mean.value == pytest.approx(1 / len(KINDS)) and mean.name == "mean of probes"
    assert [s.name for s in kinds] == [f"probe: {k}" for k in found]
    assert (kinds[0].value, kinds[0].n) == (1.0, 10) and 0.6 < kinds[0].low < 0.8


def test_probes_of_an_earlier_version_are_refused_with_what_to_do(tmp_path):
    old = {"set": "final", "kind": "spelling", "question": "Spell ox.", "answer": "o x"}
    (tmp_path / "world_data").mkdir()
    (tmp_path / "world_data" / "probes.jsonl").write_text(json.dumps(old))
    assert "probes" in tasks_of(Eval(tasks="bpb,probes"), tmp_path)
    with pytest.raises(ValueError, match=r"earlier version.*remove world_data/.*--fresh"):
        EVALUATIONS["probes"](talking_model(spoken("-")), BYTES, Eval(), tmp_path)


def test_an_examination_gives_scores_and_shows_an_exchange_of_each_kind(tmp_path):
    kinds = (*KINDS, *APART)
    one = lambda kind: SUM if kind == "arithmetic" else SPELL
    probe = lambda kind: {**one(kind), "kind": kind, "question": f"{kind}?", "set": "final"}
    lines = [json.dumps(probe(kind)) for kind in kinds for _ in range(2)]
    (tmp_path / "world_data").mkdir()
    (tmp_path / "world_data" / "probes.jsonl").write_text("\n".join(lines))
    model = talking_model(spoken(SPELL["answers"][0]), sequence_len=256)
    found = EVALUATIONS["probes"](model, BYTES, Eval(), tmp_path)
    shares = {score.name: (score.value, score.n) for score in found.scores}
    assert shares["probe: spelling"] == (1.0, 2) and shares["probe: arithmetic"] == (0.0, 2)
    *asked, story = found.exchanges
    assert [e.kind for e in asked] == [kind for kind in kinds for _ in range(2)]
    [said] = SPELL["answers"]
    assert {e.reply for e in found.exchanges} == {said} and story.right is None
    assert {e.right for e in asked if e.kind == "spelling"} == {True}
    assert {(e.right, e.wanted) for e in asked if e.kind == "animal"} == {(True, said)}
    assert {e.right for e in asked if e.kind == "arithmetic"} == {False}
