"""The examination is strict: the right words, from the right tool call, and nothing besides."""

import json

import pytest

from nanochat_jax.config.program import Eval
from nanochat_jax.evals.probes import APART, KINDS, ProbeScore, is_right, scores
from nanochat_jax.evals.run import EVALUATIONS
from tests.serve.world import BYTES, spoken, talking_model

SUM = {"kind": "arithmetic", "tool": "12+30", "answer": "That makes 42.", "key": "42"}
FACT = {"kind": "fact in chat", "tool": None, "answer": "Mira works as a cook.", "key": "cook"}
SPELL = {"kind": "spelling", "tool": None, "answer": "r i v e r", "key": "r i v e r"}
COUNT = {"kind": "letter count", "tool": "'river'.count('r')", "answer": "That is 2.", "key": "2"}
UNKNOWN = {"kind": "unknown", "tool": None, "answer": "-", "key": "I do not know"}
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
        (SPELL, "r i v e r", True),
        (SPELL, "r i v e", False),
        (SPELL, "r i v e r s", False),
        (COUNT, call("'river'.count('r')", 2) + "That is 2.", True),
        (COUNT, "That is 2.", False),
        (COUNT, call("'rivet'.count('r')", 1) + "That is 2.", False),
        (UNKNOWN, "There is nobody of that name in Willowmere, so I do not know.", True),
        (UNKNOWN, "I do not know. Gamon is a baker.", False),
        (UNKNOWN, "Gamon is a baker.", False),
    ],
)
def test_only_the_right_words_after_the_right_tool_call_count(probe, reply, right):
    assert is_right(probe, reply) == right


def test_every_kind_counts_the_same_in_the_mean():
    found = {k: ProbeScore(0, 60) for k in KINDS} | {"letter count": ProbeScore(60, 60)}
    found["identity"] = ProbeScore(10, 10)
    *kinds, mean = scores(found)
    assert mean.value == pytest.approx(1 / len(KINDS)) and mean.name == "mean of probes"
    assert [s.name for s in kinds] == [f"probe: {k}" for k in found]
    assert (kinds[0].value, kinds[0].n) == (1.0, 10) and 0.6 < kinds[0].low < 0.8


def test_an_examination_gives_scores_and_shows_an_exchange_of_each_kind(tmp_path):
    kinds = (*KINDS, *APART)
    probe = lambda kind: {**SPELL, "kind": kind, "question": f"{kind}?", "set": "final"}
    lines = [json.dumps(probe(kind)) for kind in kinds for _ in range(2)]
    (tmp_path / "world_data").mkdir()
    (tmp_path / "world_data" / "probes.jsonl").write_text("\n".join(lines))
    model = talking_model(spoken("r i v e r"), sequence_len=256)
    found = EVALUATIONS["probes"](model, BYTES, Eval(), tmp_path)
    shares = {score.name: (score.value, score.n) for score in found.scores}
    assert shares["probe: spelling"] == (1.0, 2) and shares["probe: arithmetic"] == (0.0, 2)
    *asked, story = found.exchanges
    assert [e.kind for e in asked] == [kind for kind in kinds for _ in range(2)]
    assert {e.reply for e in found.exchanges} == {"r i v e r"} and story.right is None
    assert {e.right for e in asked if e.kind == "spelling"} == {True}
    assert {(e.right, e.wanted) for e in asked if e.kind == "animal"} == {(True, "r i v e r")}
    assert {e.right for e in asked if e.kind == "arithmetic"} == {False}
