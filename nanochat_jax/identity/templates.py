"""Identity conversations without a model: phrasings x facts x greetings, one to four exchanges.

The words are in `templates.toml`.
"""

import functools
import random
import re
from collections.abc import Callable, Sequence

from nanochat_jax.data.phrases import Phrases
from nanochat_jax.identity.facts import Fact, Identity
from nanochat_jax.tasks.conversation import Messages

TEMPLATES = Phrases("nanochat_jax.identity", "templates.toml", {
    "hello": "", "hello_ends": "", "hello_back": "name", "who": "", "name_answers": "name",
    "who_after_hello": "hello question", "others": "", "is_other": "other",
    "not_other": "name other", "is_name": "name", "is_so": "name", "spell": "",
    "spelled": "name letters", "about": "", "about_answer": "name facts", "thanks": "",
    "welcome": "", "ask_key": "key", "say_key": "key value be be_first", "many_ends": "",
    "one": "", "many": "", "special": "value",
})  # fmt: skip
Exchange = tuple[str, str]
# Questions about a key, their answers, and whether "your <key>" can be said.
Phrasing = tuple[Sequence[str], Sequence[str], bool]


def conversation(identity: Identity, index: int, seed: int = 0) -> Messages:
    """The `index`-th conversation; every fact has its turn, the same index gives the same."""
    # A generator of its own for each index: a file can be extended without making it anew.
    rng = random.Random(f"{seed}:{index}")
    fact = identity.facts[index % len(identity.facts)]
    exchanges = [part(rng, identity, fact) for part in rng.choice(SHAPES)]
    typed = str.lower if rng.random() < 0.25 else str
    messages = []
    for question, answer in exchanges:
        messages.append({"role": "user", "content": _loosely(rng, typed(question))})
        messages.append({"role": "assistant", "content": answer})
    return messages


def hello(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    greeting = rng.choice(TEMPLATES["hello"]) + rng.choice(TEMPLATES["hello_ends"])
    return greeting, _drawn(rng, "hello_back", identity)


def who(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    question = rng.choice(TEMPLATES["who"])
    if rng.random() < 0.3:
        greeting = rng.choice(TEMPLATES["hello"])
        question = TEMPLATES["who_after_hello"].format(hello=greeting, question=question)
    return question, _drawn(rng, "name_answers", identity)


def other(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    """Somebody takes the model for another one."""
    # So that the answer to "Are you ...?" depends on the name, and is not always yes.
    name = rng.choice([o for o in TEMPLATES["others"] if o.lower() != identity.name.lower()])
    answer = _drawn(rng, "not_other", identity, other=name)
    return _drawn(rng, "is_other", identity, other=name), answer


same = lambda rng, identity, _: (_drawn(rng, "is_name", identity), _drawn(rng, "is_so", identity))
thanks = lambda rng, *_: (rng.choice(TEMPLATES["thanks"]), rng.choice(TEMPLATES["welcome"]))


def spell(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    letters = ", ".join(identity.name.replace(" ", ""))
    answer = TEMPLATES["spelled"].format(name=identity.name, letters=letters)
    return rng.choice(TEMPLATES["spell"]), answer


def about(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    """The name with one or two facts."""
    more = rng.choice(identity.facts)
    chosen = [fact, more] if rng.random() < 0.4 else [fact]
    facts = " ".join(dict.fromkeys(map(sentence, chosen)))
    answer = TEMPLATES["about_answer"].format(name=identity.name, facts=facts)
    return rng.choice(TEMPLATES["about"]), answer


def ask(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    """A question about the fact if it has a key; else `about`."""
    if not fact.key:
        return about(rng, identity, fact)
    questions, answers, noun = _phrasing(fact.key)
    if fact.key.lower() in _special() and rng.random() < 0.2 and noun:
        questions = TEMPLATES["ask_key"]
    question = rng.choice(questions).format(key=fact.key)
    return question, _answer(rng.choice(answers), fact)


# Short ones are the most: they hold the question that people ask first. What stands twice is drawn
# twice as often.
SHAPES: Sequence[Sequence[Callable[[random.Random, Identity, Fact], Exchange]]] = (
    (who,), (who,), (ask,), (ask,), (ask,), (about,), (other,), (same,),
    (hello, who), (hello, ask), (who, ask), (who, about), (ask, who), (other, ask), (ask, thanks),
    (spell, ask), (who, thanks), (about, thanks), (same, ask), (other, who),
    (hello, who, ask), (who, ask, thanks), (hello, about, thanks), (hello, ask, who, thanks),
)  # fmt: skip


def sentence(fact: Fact) -> str:
    """The fact as the model says it."""
    _, answers, _ = _phrasing(fact.key)
    return _answer(answers[0], fact) if fact.key else fact.value


@functools.cache
def _special() -> dict[str, Phrasing]:
    """The keys that have better words than "your <key>"."""
    return {
        key: (table["questions"], table["answers"], kind == "keys")
        for table in TEMPLATES["special"].values()
        for kind in ("keys", "not_nouns")
        for key in table.get(kind, [])
    }


def _phrasing(key: str) -> Phrasing:
    return _special().get(key.lower(), (TEMPLATES["ask_key"], TEMPLATES["say_key"], True))


def _answer(template: str, fact: Fact) -> str:
    number = TEMPLATES["many" if re.search(TEMPLATES["many_ends"], fact.key) else "one"]
    # "home: in Oslo" is not to become "I live in in Oslo."
    value = re.sub(r"^in ", "", fact.value) if " in {value}" in template else fact.value
    text = template.format(key=fact.key, value=value, **number)
    return text[0].upper() + text[1:]


def _drawn(rng: random.Random, key: str, identity: Identity, **more: str) -> str:
    return rng.choice(TEMPLATES[key]).format(name=identity.name, **more)


def _loosely(rng: random.Random, text: str) -> str:
    """As people type: now and then with fewer or more punctuation marks."""
    # So that "who are you" is answered like "Who are you?".
    drawn = rng.random()
    if drawn < 0.15:
        return text.rstrip("?.!")
    return text + text[-1] if drawn < 0.2 and text[-1] in "?!" else text
