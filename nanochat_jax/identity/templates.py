"""Identity conversations without a model: phrasings x facts x greetings, one to four exchanges.

The words are those of the identity's language: `templates.toml`, or a file of one's own.
"""

import random
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nanochat_jax.identity.facts import Fact, Identity, others
from nanochat_jax.identity.language import Phrasing
from nanochat_jax.tasks.conversation import Messages

Exchange = tuple[str, str]
ENDS, DOUBLED = "?.!।؟。？！።۔;", "?!؟？！"  # of sentences, in the scripts that have their own


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
    words = identity.words
    greeting = rng.choice(words["hello"]) + rng.choice(words["hello_ends"])
    return greeting, _drawn(rng, "hello_back", identity)


def who(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    words = identity.words
    question = rng.choice(words["who"])
    if rng.random() < 0.3:
        greeting = rng.choice(words["hello"])
        question = words["who_after_hello"].format(hello=greeting, question=question)
    return question, _drawn(rng, "name_answers", identity)


def other(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    """Somebody takes the model for another one."""
    # So that the answer to "Are you ...?" depends on the name, and is not always yes.
    name = rng.choice(others(identity.name, identity.language))
    answer = _drawn(rng, "not_other", identity, other=name)
    return _drawn(rng, "is_other", identity, other=name), answer


def same(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    return _drawn(rng, "is_name", identity), _drawn(rng, "is_so", identity)


def thanks(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    return rng.choice(identity.words["thanks"]), rng.choice(identity.words["welcome"])


def spell(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    words = identity.words
    spelled = words["letters_apart"].join(letters(identity.name.replace(" ", "")))
    answer = words["spelled"].format(name=identity.name, letters=spelled)
    return rng.choice(words["spell"]), answer


def letters(name: str) -> list[str]:
    """The letters as people read them, with the marks at each."""
    found: list[str] = []
    for character in name:
        if found and unicodedata.category(character)[0] == "M":
            found[-1] += character
        else:
            found.append(character)
    return found


def about(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    """The name with one or two facts."""
    words, more = identity.words, rng.choice(identity.facts)
    chosen = [fact, more] if rng.random() < 0.4 else [fact]
    sentences = dict.fromkeys(sentence(identity, one) for one in chosen)
    facts = words["sentences_apart"].join(sentences)
    return rng.choice(words["about"]), words["about_answer"].format(name=identity.name, facts=facts)


def ask(rng: random.Random, identity: Identity, fact: Fact) -> Exchange:
    """A question about the fact if it has a key; else `about`."""
    if not fact.key:
        return about(rng, identity, fact)
    words = identity.words
    questions, answers, noun = _phrasing(identity, fact.key)
    if fact.key.casefold() in identity.language.special and rng.random() < 0.2 and noun:
        questions = words["ask_key"]
    question = rng.choice(questions).format(key=fact.key)
    return question, _answer(words, rng.choice(answers), fact)


# Short ones are the most: they hold the question that people ask first. What stands twice is drawn
# twice as often.
SHAPES: Sequence[Sequence[Callable[[random.Random, Identity, Fact], Exchange]]] = (
    (who,), (who,), (ask,), (ask,), (ask,), (about,), (other,), (same,),
    (hello, who), (hello, ask), (who, ask), (who, about), (ask, who), (other, ask), (ask, thanks),
    (spell, ask), (who, thanks), (about, thanks), (same, ask), (other, who),
    (hello, who, ask), (who, ask, thanks), (hello, about, thanks), (hello, ask, who, thanks),
)  # fmt: skip


def sentence(identity: Identity, fact: Fact) -> str:
    """The fact as the model says it."""
    _, answers, _ = _phrasing(identity, fact.key)
    return _answer(identity.words, answers[0], fact) if fact.key else fact.value


def _phrasing(identity: Identity, key: str) -> Phrasing:
    usual = (identity.words["ask_key"], identity.words["say_key"], True)
    return identity.language.special.get(key.casefold(), usual)


def _answer(words: Mapping[str, Any], template: str, fact: Fact) -> str:
    number = words["many" if re.search(words["many_ends"], fact.key) else "one"]
    # "home: in Oslo" is not to become "I live in in Oslo."
    before = re.search(r"(\S+) \{value\}", template)
    value = fact.value.removeprefix(f"{before[1]} ") if before else fact.value
    text = template.format(key=fact.key, value=value, **number)
    return text[0].upper() + text[1:]


def _drawn(rng: random.Random, key: str, identity: Identity, **more: str) -> str:
    return rng.choice(identity.words[key]).format(name=identity.name, **more)


def _loosely(rng: random.Random, text: str) -> str:
    """As people type: now and then with fewer or more punctuation marks."""
    # So that "who are you" is answered like "Who are you?".
    drawn = rng.random()
    if drawn < 0.15:
        return text.rstrip(ENDS)
    return text + text[-1] if drawn < 0.2 and text[-1] in DOUBLED else text
