"""The prompts for a large model that writes conversations, a different one for every index.

Given one prompt a thousand times, a model writes much the same; so the person, the subject, the
opening, the length and the manner are drawn anew for every request, by its index alone.
"""

import random
from typing import Any

from nanochat_jax.identity.facts import Identity

DRAWN = ("person", "subject", "length", "manner")
OPENINGS_SHOWN = 4


def _object(**properties: Any) -> dict[str, Any]:
    # Strict schemas of OpenAI's want every key required and no others.
    return {
        "type": "object", "additionalProperties": False, "required": list(properties),
        "properties": properties,
    }  # fmt: skip


ROLE = {"type": "string", "enum": ["user", "assistant"]}
MESSAGES = {
    "type": "array", "items": _object(role=ROLE, content={"type": "string"}),
    "description": "user and assistant in turn, the user first, the assistant last",
}  # fmt: skip
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "conversation", "strict": True, "schema": _object(messages=MESSAGES)},
}


def request(identity: Identity, index: int, attempt: int = 0, seed: int = 0) -> str:
    """What is sent for the `index`-th conversation; each attempt at it gets another text."""
    rng = random.Random(f"{seed}:{index}:{attempt}")
    words = identity.language.prompts
    openings = rng.sample(words["openings"], min(OPENINGS_SHOWN, len(words["openings"])))
    facts = rng.sample(identity.facts, len(identity.facts))  # no fact is first in every request
    drawn = {key: rng.choice(words[f"{key}s"]) for key in DRAWN}
    return words["request"].format(
        name=identity.name, facts="\n".join(f"- {fact.line}" for fact in facts),
        openings="\n".join(f"  - {text}" for text in openings), **drawn,
    )  # fmt: skip
