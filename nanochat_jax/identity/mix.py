"""What a large model is asked for: one conversation, different with every index.

A model asked the same thing a thousand times says much the same; so the person, the subject, the
opening, the length and the manner are drawn anew for every call, by its index alone.
"""

import random
from collections.abc import Sequence
from typing import Any

from nanochat_jax.identity.facts import Identity

PERSONS = (
    "a child of nine who asks one thing at a time", "a student who needs it for homework",
    "a programmer who wants the details", "a journalist collecting quotes",
    "a grandmother new to computers", "a sceptic who believes nothing at first",
    "somebody in a hurry who types badly", "a teacher preparing a lesson",
    "somebody lonely who wants a chat", "a customer who took it for another product",
    "a researcher who compares models", "a joker who tries to trick it",
    "a traveller whose English is shaky", "a new colleague on the first day",
    "a novelist looking for a character", "a polite stranger", "a philosopher", "a bored teenager",
    "a nurse on a night shift", "an engineer who likes numbers",
)  # fmt: skip
SUBJECTS = (
    "its name", "who made it", "how it came to be", "what it is good at", "what it cannot do",
    "how it differs from other assistants", "whether it is a person", "what it likes",
    "where its name comes from", "what it was taught", "a fact, asked in a roundabout way",
    "two of the facts, one after the other", "a small task first, then who it is",
    "somebody claims something false about it, and it says what is true",
    "something about it that the facts do not tell, and it says that it does not know",
    "introductions at the start of a longer talk", "its plans for the day", "what it is made of",
)  # fmt: skip
OPENINGS = (
    "hi", "Hello!", "hey there", "yo", "good morning", "who is this", "whats ur name", "WHO R U",
    "Hi, I am new here.", "are you a robot?", "hm", "Hello?? anybody there", "so what are you then",
    "I have a question about you.", "Excuse me, may I ask you something?", "sup", "Guten Tag!",
    "hola", "bonjour", "ciao", "Introduce yourself in one sentence.", "Wait, you are not a human?",
    "tell me about yourself", "Someone told me to ask you.", "hello hello hello", "Hey, quick one:",
    "Greetings, machine.", "Ok computer", "are u chatgpt", "Do you know who made you?", "salut",
    "first time I use one of these", "my teacher said you can help me", "Let's talk.", "?",
)  # fmt: skip
LENGTHS = (
    "one question and one short answer", "one question and an answer of a paragraph",
    "two exchanges, all short", "two exchanges", "three exchanges", "three exchanges, all short",
    "four or five exchanges",
)  # fmt: skip
MANNERS = ("warm", "matter-of-fact", "playful", "brief", "curious about the person", "calm")
OPENINGS_SHOWN = 4

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "messages": {
            "type": "array",
            "description": "user and assistant in turn, the user first, the assistant last",
            "items": {
                "type": "object",
                "properties": {
                    "role": {"type": "string", "enum": ["user", "assistant"]},
                    "content": {"type": "string"},
                },
                "required": ["role", "content"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["messages"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "conversation", "strict": True, "schema": SCHEMA},
}

REQUEST = """\
Write one conversation between a person and an assistant called {name}. It teaches the assistant \
who it is, so every word of it about {name} must agree with these facts:

{facts}

This time:
- The person is {person}.
- They come to speak of: {subject}.
- Length: {length}.
- The assistant's manner: {manner}.
- The person's first message is in the spirit of one of these, in their own words:
{openings}

The assistant says "I", names itself {name} at least once, claims nothing about itself beyond the \
facts, and answers in plain text without lists or emphasis. If the person writes another language, \
it answers in that language or in English.

Reply with JSON alone: {{"messages": [{{"role": "user", "content": "..."}}, \
{{"role": "assistant", "content": "..."}}, ...]}}, user and assistant in turn, the assistant last.
"""


def request(identity: Identity, index: int, attempt: int = 0, seed: int = 0) -> str:
    """What is asked for the `index`-th conversation; each attempt at it asks for another one."""
    rng = random.Random(f"{seed}:{index}:{attempt}")
    openings = "\n".join(f"  - {text}" for text in rng.sample(OPENINGS, OPENINGS_SHOWN))
    return REQUEST.format(
        name=identity.name,
        facts="\n".join(f"- {fact.line}" for fact in _shuffled(rng, identity.facts)),
        person=rng.choice(PERSONS),
        subject=rng.choice(SUBJECTS),
        length=rng.choice(LENGTHS),
        manner=rng.choice(MANNERS),
        openings=openings,
    )


def _shuffled(rng: random.Random, items: Sequence[Any]) -> list[Any]:
    """No fact stands first in every request."""
    return rng.sample(items, len(items))
