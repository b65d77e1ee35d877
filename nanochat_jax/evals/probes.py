"""Probes: questions about the embedded world, strictly scored, kind by kind."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat_jax import files
from nanochat_jax.evals.shares import Share
from nanochat_jax.results import Exchange, Score
from nanochat_jax.serve.engine import Engine
from nanochat_jax.tokenizer import Tokenizer
from nanochat_jax.tokenizer.chat_format import calls_and_text, parse

# What the mean is taken over. The first minute stands apart: its lines may be in conversations.
KINDS = (
    "identity", "fact in chat", "fact in documents", "animal", "arithmetic", "unknown", "spelling",
    "letter count",
)  # fmt: skip
APART = ("first minute",)
MAX_TOKENS = 144  # what the longest story takes; all else ends long before
SENTENCE = re.compile(r'[^.!?]+[.!?]"?')


@dataclasses.dataclass(frozen=True)
class ProbeScore(Share):
    """`correct` of `n`, with the exchanges that were judged."""

    baseline: float = 0.0
    exchanges: tuple[Exchange, ...] = ()


def load_probes(folder: pathlib.Path, which: str = "final") -> list[dict[str, Any]]:
    """The probes of a set ("dev" or "final") of the world in `folder`; none without a world."""
    path = folder / "probes.jsonl"
    return [p for p in files.read_json_lines(path) if p["set"] == which]


def run_probes(
    engine: Engine, tokenizer: Tokenizer, probes: Sequence[Mapping[str, Any]], *,
    temperature: float = 0.0, top_k: int | None = None, seed: int = 0,
) -> dict[str, ProbeScore]:  # fmt: skip
    """Kind -> score, of one reply to each probe.

    Raises:
        ValueError: an earlier version wrote the probes.
    """
    if any("answers" not in probe for probe in probes):
        raise ValueError(
            "the probes are of an earlier version, which asked otherwise; remove world_data/ from "
            "the base directory, and `python -m scripts.speedrun --fresh` writes today's"
        )
    prompts = [prompt_of(tokenizer, p["question"]) for p in probes]
    replies = engine.complete(prompts, MAX_TOKENS, temperature, top_k, seed)
    judged: dict[str, list[Exchange]] = {}
    for probe, reply in zip(probes, replies, strict=True):
        text = tokenizer.decode(reply.tokens)
        wanted = " or ".join(probe["answers"]) or f"a story about {probe['story'] or 'anything'}"
        one = Exchange(probe["kind"], probe["question"], text, is_right(probe, text), wanted)
        judged.setdefault(probe["kind"], []).append(one)
    count = lambda exchanges: sum(bool(exchange.right) for exchange in exchanges)
    return {k: ProbeScore(count(v), len(v), exchanges=tuple(v)) for k, v in judged.items()}


def prompt_of(tokenizer: Tokenizer, question: str) -> list[int]:
    """The ids of a first turn that waits for its answer."""
    empty = {"role": "assistant", "content": ""}
    messages = [{"role": "user", "content": question}, empty]
    return tokenizer.render_for_completion({"messages": messages})


def mean_share(found: Mapping[str, ProbeScore]) -> float:
    """The mean of the kinds' shares, each kind counting the same."""
    return sum(found[k].accuracy for k in KINDS) / len(KINDS)


def scores(found: Mapping[str, ProbeScore]) -> list[Score]:
    """A score for each kind, and their mean."""
    kinds = [found[k].score(f"probe: {k}", count_shown=True) for k in (*KINDS, *APART)]
    return [*kinds, Score("mean of probes", mean_share(found), "share")]


def is_right(probe: Mapping[str, Any], reply: str) -> bool:
    """Strict: the answer's own words, nothing else; a sum must come from the right tool call.

    - facts, animals, identity, unknown: the reply is the canonical sentence, word for word;
    - spelling: exactly the letters, in the sentence that gives them;
    - sums and counts: the tool computed this very result, and the reply gives it;
    - the first minute: the same, or one of several sentences that fit, or a whole story.
    """
    # A reply that merely contains the answer may contain its opposite too.
    calls, text = calls_and_text(parse(reply))
    if probe["story"] is not None:
        return not calls and is_story(text, probe["story"])
    if text not in probe["answers"]:
        return False
    if probe["tool"] is None:
        return not calls
    return calls == [probe["tool"]] or _right_sum(probe["tool"], calls)


def is_story(text: str, topic: str) -> bool:
    """Four sentences or more, the last one whole, none twice, the first about the topic."""
    sentences = [sentence.strip() for sentence in SENTENCE.findall(text)]
    whole = "".join(SENTENCE.findall(text)) == text
    first = sentences[0] if sentences else ""
    about = first.startswith("This is a story about ") and topic in first
    return whole and about and len(sentences) >= 4 and len({*sentences}) == len(sentences)


def _right_sum(tool: str, calls: Sequence[str]) -> bool:
    """One call, of the same operation on the same numbers (in any order that gives the same)."""
    if len(calls) != 1:
        return False
    # The call, not only its result: 40+2 for 12+30 is luck or memory, not reading the question.
    wanted, got = (re.split(r"([-+*])", x.replace(" ", "")) for x in (tool, calls[0]))
    if len(got) != 3 or got[1] != wanted[1]:
        return False
    return got == wanted or (got[1] in "+*" and got[::-1] == wanted)
