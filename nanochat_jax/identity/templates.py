"""Identity conversations without a model: phrasings x facts x greetings, one to four exchanges.

Answers are few and plain, questions many and loose: that is what a tiny model can learn from.
"""

import random
import re
from collections.abc import Callable, Sequence

from nanochat_jax.identity.facts import Fact, Identity
from nanochat_jax.tasks.conversation import Messages

Exchange = tuple[str, str]

HELLO = (
    "Hi", "Hello", "Hey", "Good morning", "Good evening", "Hi there", "Hello there", "Hey there",
    "Good day", "Greetings", "Good afternoon", "Hiya", "Howdy", "Nice to meet you", "Yo",
)  # fmt: skip
HELLO_BACK = (
    "Hello! I am {name}. What can I do for you?", "Hi! I am {name}. How can I help?",
    "Hello, I am {name}. Ask me something.", "Hi there! {name} here. What would you like to know?",
)  # fmt: skip
WHO = (
    "Who are you?", "What is your name?", "What are you called?", "Tell me your name.",
    "May I ask your name?", "How should I call you?", "And you are?", "Whom am I talking to?",
    "Who am I chatting with?", "Do you have a name?", "Please introduce yourself.",
    "Can you tell me who you are?", "What do people call you?", "I did not catch your name.",
    "What should I call you?", "Say who you are.", "Which assistant are you?", "Your name?",
)  # fmt: skip
NAME = (
    "I am {name}.", "My name is {name}.", "I am called {name}.", "You are talking to {name}.",
)  # fmt: skip
ABOUT = (
    "Tell me something about yourself.", "Tell me about you.", "What should I know about you?",
    "What is special about you?", "Say something about yourself.", "Describe yourself.",
    "I would like to know more about you.", "What can you tell me about yourself?",
    "Give me a fact about you.", "Who are you, in a few words?", "Tell me one more thing.",
)  # fmt: skip
OTHERS = (
    "ChatGPT", "Siri", "Alexa", "Claude", "Gemini", "Llama", "Copilot", "Bob", "Cortana", "Jarvis",
)  # fmt: skip
IS_OTHER = (
    "Are you {other}?", "Is your name {other}?", "You are {other}, right?", "Hello {other}!",
    "So you are {other}?", "I think you are {other}.", "{other}, is that you?",
)  # fmt: skip
NOT_OTHER = ("No, I am {name}.", "No. My name is {name}.", "I am not {other}, I am {name}.")
IS_NAME = (
    "Are you {name}?", "Is your name {name}?", "You are {name}, right?", "Are you called {name}?",
    "{name}, is that you?", "So you are {name}?",
)  # fmt: skip
IS_SO = ("Yes, I am {name}.", "Yes, my name is {name}.", "That is right, I am {name}.")
SPELL = ("How do you spell your name?", "Spell your name.", "How is your name written?")
THANKS = (
    "Thanks!",
    "Thank you.",
    "Great, thanks.",
    "Cool.",
    "Nice.",
    "Good to know.",
    "Okay, bye!",
)
WELCOME = ("You are welcome!", "Any time.", "My pleasure.", "Glad to help.")

ASK_KEY = (
    "What is your {key}?", "What's your {key}?", "Tell me your {key}.", "Your {key}?",
    "Can you tell me your {key}?", "I would like to know your {key}.", "And your {key}?",
    "Do you know your {key}?", "Please tell me your {key}.", "May I ask what your {key} is?",
)  # fmt: skip
SAY_KEY = ("My {key} {be} {value}.", "{be_first} {value}.", "My {key}? {be_first} {value}.")

# Questions and answers of keys that have better words than "your <key>".
MAKER = (
    (
        "Who made you?", "Who built you?", "Who created you?", "Who is your creator?",
        "Who trained you?", "Who do you come from?", "Whose work are you?", "Who wrote you?",
        "Did somebody make you?",
    ),
    ("I was made by {value}.", "{value} made me.", "My maker is {value}."),
)  # fmt: skip
HOME = (
    (
        "Where do you live?", "Where are you from?", "Where is your home?", "Where are you?",
        "Where do you come from?", "In which place are you at home?",
    ),
    ("I live in {value}.", "My home is {value}.", "I am at home in {value}."),
)  # fmt: skip
SPEECH = (
    (
        "What languages do you speak?", "Which languages do you know?", "What do you speak?",
        "In which language can we talk?", "What language can I use?",
    ),
    ("I speak {value}.", "We can talk in {value}.", "I know {value}."),
)  # fmt: skip
SPECIAL = {
    **dict.fromkeys("creator maker author developer builder inventor".split(), MAKER),
    **dict.fromkeys(("made by", "built by", "created by", "trained by"), MAKER),
    **dict.fromkeys(("home", "location", "lives in", "place", "city"), HOME),
    **dict.fromkeys(("language", "languages"), SPEECH),
}


def conversation(identity: Identity, index: int, seed: int = 0) -> Messages:
    """The `index`-th conversation; every fact has its turn, the same index gives the same."""
    rng = random.Random(f"{seed}:{index}")
    fact = identity.facts[index % len(identity.facts)]
    shape = rng.choice(SHAPES)
    exchanges = [part(rng, identity, fact) for part in shape]
    lower = rng.random() < 0.25
    messages = []
    for asked, answered in exchanges:
        asked = _loosely(rng, asked, lower)
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answered})
    return messages


def hello(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    asked = rng.choice(HELLO) + rng.choice((".", "!", "", ", how are you?"))
    return asked, rng.choice(HELLO_BACK).format(name=identity.name)


def who(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    asked = rng.choice(WHO)
    if rng.random() < 0.3:
        asked = f"{rng.choice(HELLO)}! {asked}"
    return asked, rng.choice(NAME).format(name=identity.name)


def other(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    """Somebody takes the model for another one."""
    name = rng.choice([o for o in OTHERS if o.lower() != identity.name.lower()])
    answer = rng.choice(NOT_OTHER).format(name=identity.name, other=name)
    return rng.choice(IS_OTHER).format(other=name), answer


def same(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    asked = rng.choice(IS_NAME).format(name=identity.name)
    return asked, rng.choice(IS_SO).format(name=identity.name)


def spell(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    return rng.choice(SPELL), f"{identity.name}: {', '.join(identity.name.replace(' ', ''))}."


def about(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    """The name with one or two facts."""
    more = rng.choice(identity.facts)
    said = list(dict.fromkeys((sentence(fact), sentence(more)))) if rng.random() < 0.4 else None
    return rng.choice(ABOUT), f"I am {identity.name}. {' '.join(said or [sentence(fact)])}"


def ask(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    """A question after the fact, where it can be asked after; else `about`."""
    if not fact.key:
        return about(rng, identity, fact)
    questions, answers = SPECIAL.get(fact.key.lower(), (ASK_KEY, SAY_KEY))
    if questions is not ASK_KEY and rng.random() < 0.2 and " by" not in fact.key:
        questions = ASK_KEY
    asked = rng.choice(questions).format(key=fact.key)
    return asked, _say(rng.choice(answers), fact)


def thanks(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    return rng.choice(THANKS), rng.choice(WELCOME)


SHAPES: Sequence[Sequence[Callable[[random.Random, Identity, Fact], Exchange]]] = (
    (who,), (who,), (ask,), (ask,), (ask,), (about,), (other,), (same,),
    (hello, who), (hello, ask), (who, ask), (who, about), (ask, who), (other, ask), (ask, thanks),
    (spell, ask), (who, thanks), (about, thanks), (same, ask), (other, who),
    (hello, who, ask), (who, ask, thanks), (hello, about, thanks), (hello, ask, who, thanks),
)  # fmt: skip


def sentence(fact: Fact) -> str:
    """The fact as the model says it."""
    if not fact.key:
        return fact.value
    return _say(SPECIAL.get(fact.key.lower(), (ASK_KEY, SAY_KEY))[1][0], fact)


def _say(answer: str, fact: Fact) -> str:
    many = re.search(r"[^su]s$", fact.key) is not None
    value = re.sub(r"^in ", "", fact.value) if " in {value}" in answer else fact.value
    be, first = ("are", "They are") if many else ("is", "It is")
    said = answer.format(key=fact.key, value=value, be=be, be_first=first)
    return said[0].upper() + said[1:]


def _loosely(rng: random.Random, text: str, lower: bool) -> str:
    """As people type: now and then without capitals, with fewer or more marks at the end."""
    if lower:
        text = text.lower()
    drawn = rng.random()
    if drawn < 0.15:
        return text.rstrip("?.!")
    return text + text[-1] if drawn < 0.2 and text[-1] in "?!" else text
