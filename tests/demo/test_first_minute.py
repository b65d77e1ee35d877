"""The first minute: every line has a reply that fits, and what fits another does not."""

import itertools

import pytest

from nanochat_jax.demo import examination, facts
from nanochat_jax.evals.probes import is_right

PEOPLE = facts.make_people(0)
PROBES = [{"kind": "first minute", **p} for p in examination.first_minute(PEOPLE)]
TALE = (
    "This is a story about {topic}. One day a frog lost its way. Mira saw it. "
    '"Come with me," said Mira. In the end they were both glad.'
)


def reply_to(probe):
    """A reply that fits, as the model would write it."""
    if probe["story"] is not None:
        return TALE.format(topic=probe["story"] or "the frog")
    if probe["tool"] is None:
        return probe["answers"][-1]
    value = probe["answers"][0].split()[-1].strip(".")
    call = f"<|python_start|>{probe['tool']}<|python_end|>"
    return f"{call}<|output_start|>{value}<|output_end|>{probe['answers'][0]}"


def test_forty_lines_are_asked():
    lines = [probe["question"] for probe in PROBES]
    assert len(lines) >= 40 and len({*lines}) == len(lines)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe["question"])
def test_a_reply_that_fits_counts_and_a_longer_or_an_empty_one_does_not(probe):
    assert is_right(probe, reply_to(probe))
    for wrong in ("", reply_to(probe) + " And", reply_to(probe) * 2, reply_to(probe)[:-1]):
        assert not is_right(probe, wrong)


def test_what_fits_one_line_fits_no_line_of_another_kind():
    for one, other in itertools.permutations(PROBES, 2):
        same = one["story"] is not None and other["story"] == ""
        same |= {*one["answers"]} & {*other["answers"]} != set() and one["tool"] == other["tool"]
        assert is_right(other, reply_to(one)) == same or same, (one, other)


@pytest.mark.parametrize(
    "reply",
    [
        "I do not know that. I only know Willowmere.",
        "This is a story about the cat. One day a cat came. It ran. It was glad.",
        "This is a story about the fox. One day a fox came.",
        "This is a story about the fox. It ran. It ran. It ran. It was glad.",
        "This is a story about the fox. One day a fox came. It ran. It was glad and",
        "<|python_start|>1+1<|python_end|>" + TALE.format(topic="the fox"),
    ],
)
def test_a_story_is_whole_of_the_topic_and_says_nothing_twice(reply):
    assert not is_right({"story": "fox", "tool": None, "answers": []}, reply)
