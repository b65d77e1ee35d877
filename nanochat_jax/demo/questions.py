"""One question with its answer, for every kind of thing that is asked: the turns of a chat.

`split` is "train", "dev" or "final": the last two use phrasings, numbers, words and names that no
training conversation ever holds. An answer is text, or the parts of a calculator call.
"""

import dataclasses
import operator
import random
import string
from collections.abc import Callable

from nanochat_jax.data.phrases import Phrases
from nanochat_jax.demo import words
from nanochat_jax.demo.facts import ATTRIBUTES, WORLD, Person, a, held_out, share
from nanochat_jax.demo.sentences import ANIMAL_ASPECTS, SENTENCES, animal_statement, statement
from nanochat_jax.demo.stories import story

QUESTIONS = Phrases("nanochat_jax.demo", "content/questions.toml", {
    "openers": "", "person": "name", "word": "value", "word_answer": "value kind",
    "nobody": "name", "unknown_answer": "", "beyond": "",
    "sum_answer": "result", "count_answer": "result", "things": "", "story": "topic",
    "any_story": "", "story_begins": "topic", "word_kinds": "", "shared": "value",
    "outside": "land", "lands": "", "spell": "word", "spell_answer": "letters",
    "count": "word letter", "sums": "x y name other things", "identity": "", "small_talk": "",
}, known=WORLD)  # fmt: skip
SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclasses.dataclass(frozen=True)
class Question:
    text: str
    answer: str | list[dict[str, str]]


Maker = Callable[[random.Random, tuple[Person, ...], str], Question]


def person_question(rng: random.Random, name: str, attribute: str, split: str) -> str:
    """A question about one attribute, outright or wrapped."""
    if split != "train" and rng.random() < 0.3:
        return SENTENCES["held_direct"][split][attribute].format(name=name)
    direct, clauses = SENTENCES["direct"][attribute], SENTENCES["clauses"][attribute]
    return _asked(rng, direct, clauses, split, 0.5, name=name)


def _asked(
    rng: random.Random, direct: list[str], clauses: list[str], split: str, often: float,
    **names: str,
) -> str:  # fmt: skip
    """A question as it stands, so often in training; else a clause in a way round a question."""
    if split == "train" and rng.random() < often:
        return rng.choice(direct).format(**names)
    clause = rng.choice(clauses).format(**names)
    return rng.choice(SENTENCES["wraps"][split]).format(clause=clause)


def person_fact(rng: random.Random, person: Person, attribute: str, split: str) -> Question:
    text = person_question(rng, person.name, attribute, split)
    return Question(text, statement(person, attribute))


def chat_fact(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    """A fact that conversations may ask, sometimes the other way round (who is the baker?)."""
    person, attribute = rng.choice(people), rng.choice(ATTRIBUTES)
    if held_out(person, attribute):
        return chat_fact(rng, people, split)
    if split == "train" and attribute in SENTENCES["reverse"] and rng.random() < 0.3:
        value = person.facts[attribute]
        text = rng.choice(SENTENCES["reverse"][attribute]).format(value=value, a_value=a(value))
        return Question(text, statement(person, attribute))
    return person_fact(rng, person, attribute, split)


def word_of_the_world(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    """What a job, a pet or a place is: so that only facts are held out, never the words."""
    person, attribute = rng.choice(people), rng.choice(ATTRIBUTES)
    value, kind = person.facts[attribute], QUESTIONS["word_kinds"][attribute]
    answer = QUESTIONS["word_answer"].format(value=value[0].upper() + value[1:], kind=kind)
    return Question(rng.choice(QUESTIONS["word"]).format(value=value), answer)


def whole_person(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    """Who someone is: two facts that conversations may ask."""
    person = rng.choice(people)
    known = [k for k in ATTRIBUTES if not held_out(person, k)]
    if len(known) < 2:
        return chat_fact(rng, people, split)
    chosen = sorted(rng.sample(known, 2), key=ATTRIBUTES.index)
    text = rng.choice(QUESTIONS["person"]).format(name=person.name)
    return Question(text, " ".join(statement(person, k) for k in chosen))


def favorite(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    """Who shares a dish or a hobby: answered by naming one who does."""
    attribute, text = rng.choice(list(QUESTIONS["shared"].items()))
    options = [p for p in people if not held_out(p, attribute)]
    value = rng.choice(options).facts[attribute]
    # Always the same one of them: a small model cannot learn an answer that is drawn.
    named = min((p for p in options if p.facts[attribute] == value), key=lambda p: p.name)
    return Question(text.format(value=value), statement(named, attribute))


def animal_fact(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    animal, aspect = rng.choice(list(WORLD["animals"])), rng.choice(ANIMAL_ASPECTS)
    texts, names = SENTENCES["animals"], {"animal": animal, "a": a(animal).split()[0]}
    text = _asked(rng, texts["direct"][aspect], texts["clauses"][aspect], split, 0.5, **names)
    return Question(text, animal_statement(animal, aspect))


def identity(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    about = QUESTIONS["identity"][rng.choice(list(QUESTIONS["identity"]))]
    text = _asked(rng, about["direct"], about["clauses"], split, 0.6)
    return Question(text, about["answer"])


def unknown(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    """Somebody who does not exist, or the world outside: the answer is not to know."""
    # Without such questions every question has an answer, and the twenty-first person gets a job.
    if rng.random() < 0.5:
        name = words.invented_name(rng, never=split != "train")
        if split == "train" and rng.random() < 0.15:
            text = rng.choice(QUESTIONS["nobody"]).format(name=name)
        else:
            text = person_question(rng, name, rng.choice(ATTRIBUTES), split)
        return Question(text, QUESTIONS["unknown_answer"])
    if rng.random() < 0.3:
        return Question(rng.choice(QUESTIONS["beyond"][split]), QUESTIONS["unknown_answer"])
    frame, land = (rng.choice(QUESTIONS[name][split]) for name in ("outside", "lands"))
    return Question(frame.format(land=land), QUESTIONS["unknown_answer"])


def spelling(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    """A word, letter by letter; in probes one that no conversation ever spells."""
    word = words.to_spell(rng, split)
    return spelled(rng.choice(QUESTIONS["spell"][split]).format(word=word), word)


def spelled(text: str, word: str) -> Question:
    return Question(text, QUESTIONS["spell_answer"].format(letters=" ".join(word)))


def letter_count(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    """How often a letter stands in a word: the tool counts."""
    word = words.to_spell(rng, split)
    letter = rng.choice(word if rng.random() < 0.9 else string.ascii_lowercase)
    return counted(
        rng.choice(QUESTIONS["count"][split]).format(letter=letter, word=word), word, letter
    )


def counted(text: str, word: str, letter: str) -> Question:
    # In its letters, not as a word: behind a quote 'goose' has other tokens than in a question, and
    # to write those there is no less to learn than to spell it.
    call = f"'{' '.join(word)}'.count('{letter}')"
    return _by_tool(text, call, word.count(letter), "count_answer")


def arithmetic(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    """A sum for the calculator; the answer says what the tool gave."""
    # What is left for the model is to copy the operands into the call.
    sign = rng.choice("++--*")
    x, y = _operands(rng, sign, split)
    one, two = rng.sample(people, 2)
    text = rng.choice(QUESTIONS["sums"][split][sign]).format(
        x=x, y=y, name=one.name, other=two.name, things=rng.choice(QUESTIONS["things"])
    )
    return sum_of(text, x, sign, y)


def sum_of(text: str, x: int, sign: str, y: int) -> Question:
    return _by_tool(text, f"{x}{sign}{y}", SIGNS[sign](x, y), "sum_answer")


def _operands(rng: random.Random, sign: str, split: str) -> tuple[int, int]:
    """A fifth of all pairs is never in a training conversation."""
    while True:
        if sign == "*":
            x, y = rng.randint(2, 12), rng.randint(2, 20)
        else:
            most = 12 if rng.random() < 0.15 else 99
            x, y = rng.randint(1, most), rng.randint(1, most)
            if rng.random() < (0.1 if split == "train" else 0.05):
                x = rng.randint(100, 300)
        if sign == "-" and x < y:
            x, y = y, x
        if (share("sum", sign, x, y) < 0.2) == (split != "train") and x != y:
            return x, y


def _by_tool(text: str, expression: str, result: int, then: str) -> Question:
    """A question whose answer calls the calculator and says, in the phrase `then`, what it gave."""
    parts = (expression, str(result), QUESTIONS[then].format(result=result))
    kinds = ("python", "python_output", "text")
    answer = [{"type": kind, "text": part} for kind, part in zip(kinds, parts, strict=True)]
    return Question(text, answer)


def story_request(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    animals = list(WORLD["animals"])
    topic = rng.choice([rng.choice(animals), rng.choice(WORLD["objects"]), rng.choice(people).name])
    named = topic if topic[0].isupper() else rng.choice((a(topic), f"the {topic}"))
    text = story(rng, people, topic)
    begins = QUESTIONS["story_begins"].format(topic=named)
    if rng.random() < 0.35:
        return Question(rng.choice(QUESTIONS["any_story"]), begins + text)
    return Question(rng.choice(QUESTIONS["story"]).format(topic=named), begins + text)


def small_talk(rng: random.Random, people: tuple[Person, ...], split: str) -> Question:
    talk = QUESTIONS["small_talk"][rng.choice(list(QUESTIONS["small_talk"]))]
    return Question(rng.choice(talk["questions"]), talk["answer"])
