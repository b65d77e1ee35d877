"""One question with its answer, for every kind of thing that is asked: the turns of a chat.

`asked` is "train", "dev" or "final": the last two use phrasings, numbers, words and names that no
training conversation ever holds. An answer is text, or the parts of a calculator call.
"""

import dataclasses
import random
from typing import Any

from nanochat_jax.demo import sentences as say
from nanochat_jax.demo import words
from nanochat_jax.demo.facts import (
    ANIMALS,
    ASSISTANT,
    ATTRIBUTES,
    FOODS,
    HOBBIES,
    OBJECTS,
    VALLEY,
    Person,
    a,
    held_out,
    share,
)
from nanochat_jax.demo.stories import story

Answer = str | list[dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Turn:
    """A question and its answer; `key` is what a strict score looks for in the answer."""

    question: str
    answer: Answer
    key: str = ""


def wrapped(rng: random.Random, clause: str, asked: str) -> str:
    """The clause in one of the ways round a question."""
    return rng.choice(say.WRAPS if asked == "train" else say.HELD_WRAPS[asked]).format(c=clause)


# Facts about people.


def person_question(rng: random.Random, person: Person, attribute: str, asked: str) -> str:
    """A question about one attribute, outright or wrapped."""
    if asked == "train":
        if rng.random() < 0.5:
            return rng.choice(say.DIRECT[attribute]).format(n=person.name)
    elif rng.random() < 0.3:
        return say.HELD_DIRECT[asked][attribute].format(n=person.name)
    return wrapped(rng, rng.choice(say.CLAUSES[attribute]).format(n=person.name), asked)


def person_fact(rng: random.Random, person: Person, attribute: str, asked: str) -> Turn:
    question = person_question(rng, person, attribute, asked)
    return Turn(question, say.statement(person, attribute), getattr(person, attribute))


def chat_fact(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    """A fact that conversations may ask, sometimes the other way round (who is the baker?)."""
    while True:
        person, attribute = rng.choice(people), rng.choice(ATTRIBUTES)
        if held_out(person, attribute):
            continue
        if asked == "train" and attribute in say.REVERSE and rng.random() < 0.3:
            return reverse_fact(rng, person, attribute)
        return person_fact(rng, person, attribute, asked)


def reverse_fact(rng: random.Random, person: Person, attribute: str) -> Turn:
    value = getattr(person, attribute)
    question = rng.choice(say.REVERSE[attribute]).format(v=value, av=a(value))
    return Turn(question, say.reverse_statement(person, attribute), person.name)


def word_of_the_world(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    """What a job, a pet or a place is: so that only facts are held out, never the words."""
    person = rng.choice(people)
    kinds = {
        "job": (person.job, "a kind of work"), "pet_name": (person.pet_name, "the name of a pet"),
        "home": (person.home, "a place in the valley"), "pet": (person.pet, "an animal"),
        "food": (person.food, "a dish"), "color": (person.color, "a color"),
        "hobby": (person.hobby, "a hobby"),
    }  # fmt: skip
    value, kind = kinds[rng.choice(ATTRIBUTES)]
    question = rng.choice(
        ("What is {v}?", "What does the word {v} mean?", "Is {v} a thing here?", "Explain {v}.")
    )
    return Turn(question.format(v=value), f"{value[0].upper() + value[1:]} is {kind}.", kind)


def whole_person(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    """Who someone is: two or three facts that conversations may ask."""
    person = rng.choice(people)
    known = [k for k in ATTRIBUTES if not held_out(person, k)]
    if len(known) < 2:
        return chat_fact(rng, people, asked)
    chosen = sorted(rng.sample(known, 2), key=ATTRIBUTES.index)
    question = rng.choice(
        (
            "Who is {n}?",
            "Tell me about {n}.",
            "What do you know about {n}?",
            "Do you know {n}?",
            "Describe {n}.",
        )
    )
    return Turn(question.format(n=person.name), " ".join(say.statement(person, k) for k in chosen))


def animal_fact(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    animal = rng.choice(list(ANIMALS))
    aspect = rng.choice(say.ANIMAL_ASPECTS)
    value = ANIMALS[animal][say.ANIMAL_ASPECTS.index(aspect)]
    names = {"n": animal, "an": a(animal).split()[0]}
    if asked == "train" and rng.random() < 0.5:
        question = rng.choice(say.ANIMAL_QUESTIONS[aspect]).format(**names)
    else:
        question = wrapped(rng, rng.choice(say.ANIMAL_CLAUSES[aspect]).format(**names), asked)
    return Turn(question, say.animal_statement(animal, aspect, value), value)


# The assistant itself.

IDENTITY: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], str]] = {
    "name": (
        f"I am {ASSISTANT}, the assistant of {VALLEY}.",
        ("Who are you?", "What is your name?", "What are you called?", "Do you have a name?", "Which name do you have?"),
        ("who you are", "what your name is", "your name"),
        ASSISTANT,
    ),
    "maker": (
        "I was trained by nanochat-jax, on this computer.",
        ("Who made you?", "Who trained you?", "Where do you come from?", "Who built you?", "Who is your maker?", "How were you made?"),
        ("who made you", "who trained you", "where you come from", "how you were made"),
        "nanochat-jax",
    ),
    "kind": (
        "I am a very small language model.",
        ("What are you?", "Are you a human?", "Are you a person or a machine?", "What kind of thing are you?", "Are you a robot?"),
        ("what you are", "what kind of thing you are", "if you are a human"),
        "language model",
    ),
    "skills": (
        f"I can talk about {VALLEY}, do sums, spell words and tell stories.",
        ("What can you do?", "How can you help me?", "What are you good at?", "What do you know?", "What can I ask you?"),
        ("what you can do", "what you are good at", "how you can help me", "what I can ask you"),
        "do sums",
    ),
    "place": (
        f"{VALLEY} is the valley that I know best.",
        (f"What is {VALLEY}?", f"Where is {VALLEY}?", "Which valley do you know?", "What place do you know best?"),
        (f"what {VALLEY} is", "which valley you know", "which place you know best"),
        "valley",
    ),
}  # fmt: skip


def identity(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    answer, direct, clauses, key = IDENTITY[rng.choice(list(IDENTITY))]
    if asked == "train" and rng.random() < 0.6:
        return Turn(rng.choice(direct), answer, key)
    return Turn(wrapped(rng, rng.choice(clauses), asked), answer, key)


# What nobody here knows.

OUTSIDE = (
    "What is the capital of {x}?", "Who is the king of {x}?", "Who is the president of {x}?",
    "How far is it to {x}?", "How many people live in {x}?", "What language do they speak in {x}?",
    "Who wrote the book about {x}?", "When was {x} founded?", "How old is {x}?", "What is the weather in {x}?",
    "Who won the war of {x}?", "How high is the tower of {x}?", "What is the biggest city in {x}?",
    "Can you tell me something about {x}?", "How do I get to {x}?", "Is {x} a nice place?",
    "What do people eat in {x}?", "What is {x} famous for?", "Who discovered {x}?", "How big is {x}?",
)  # fmt: skip
OUTSIDE_HELD = {
    "dev": ("What money do they use in {x}?", "Who rules {x}?", "Which sea is near {x}?"),
    "final": (
        "What is the flag of {x}?",
        "How many rivers are in {x}?",
        "Who lives in {x}?",
        "What is the oldest house in {x}?",
    ),
}
LANDS = (
    "France China Egypt Peru London Paris Rome Japan Canada Brazil Kenya India Spain Norway Texas "
    "Berlin Mars Africa Europe America"
).split()
LANDS_HELD = {
    "dev": "Chile Sweden Madrid".split(),
    "final": "Poland Vienna Cuba Russia Greece Oslo Turkey".split(),
}
DO_NOT_KNOW = "I do not know"
OUTSIDE_ANSWER = f"That is outside of {VALLEY}, so I do not know it."
NOBODY_ANSWER = f"There is nobody of that name in {VALLEY}, so I do not know."


def unknown(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    """Somebody who does not exist, or the world outside: the answer is not to know."""
    if rng.random() < 0.6:
        name = words.invented_name(rng, never=asked != "train")
        if asked == "train" and rng.random() < 0.15:
            return Turn(rng.choice(("Who is {n}?", "Tell me about {n}.", "Do you know {n}?")).format(n=name), NOBODY_ANSWER, DO_NOT_KNOW)  # fmt: skip
        nobody = dataclasses.replace(people[0], name=name)
        attribute = rng.choice(ATTRIBUTES)
        return Turn(person_question(rng, nobody, attribute, asked), NOBODY_ANSWER, DO_NOT_KNOW)
    frames, lands = (
        (OUTSIDE, LANDS) if asked == "train" else (OUTSIDE_HELD[asked], LANDS_HELD[asked])
    )
    return Turn(rng.choice(frames).format(x=rng.choice(lands)), OUTSIDE_ANSWER, DO_NOT_KNOW)


# Letters.

SPELL = (
    "Spell {w}.", "Spell the word {w}.", "How do you spell {w}?", "How is {w} spelled?", "What are the letters of {w}?",
    "Please spell {w}.", "Can you spell {w}?", "Which letters are in {w}, in order?", "Write {w} letter by letter.",
    "Say the letters of {w}.", "I cannot spell {w}. Can you?", "How do I write {w}?", "Give me the letters of {w}.",
)  # fmt: skip
SPELL_HELD = {
    "dev": ("Could you spell {w}?", "How would you spell {w}?"),
    "final": (
        "Tell me how to spell {w}.",
        "Please say the letters of {w}.",
        "I forgot how to spell {w}.",
    ),
}
COUNT = (
    "How many times is the letter {l} in {w}?", "How many {l} are in {w}?", "Count the letter {l} in {w}.",
    "How often does {l} appear in {w}?", "How often is {l} in the word {w}?", "Count how many {l} {w} has.",
)  # fmt: skip
COUNT_HELD = {
    "dev": ("How many times does {w} have the letter {l}?",),
    "final": ("In {w}, how often is the letter {l}?", "How many of the letter {l} does {w} have?"),
}


def spelling(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    """A world word, letter by letter; in probes one that no conversation ever spells."""
    wanted = asked != "train"
    word = rng.choice([w for w in words.world_words() if words.document_only(w) == wanted])
    if asked == "train" and rng.random() < 0.15:
        word = words.invented(rng)
    frame = rng.choice(SPELL if asked == "train" else SPELL_HELD[asked])
    return Turn(frame.format(w=word), words.spelled(word), words.spelled(word))


def letter_count(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    """How often a letter stands in a word: the tool counts."""
    wanted = asked != "train"
    word = rng.choice([w for w in words.world_words() if words.document_only(w) == wanted])
    letter = rng.choice(word)
    frame = rng.choice(COUNT if asked == "train" else COUNT_HELD[asked])
    count = word.count(letter)
    answer = call(f"'{word}'.count('{letter}')", str(count), f"That is {count}.")
    return Turn(frame.format(l=letter, w=word), answer, str(count))


# Numbers.

PLUS = (
    "What is {x} plus {y}?", "How much is {x} plus {y}?", "{x} + {y}", "What is {x} + {y}?", "Add {x} and {y}.",
    "What is the sum of {x} and {y}?", "Add {y} to {x}.", "Calculate {x} + {y}.", "{x} plus {y} is what?",
    "Can you add {x} and {y}?", "How much is {x} and {y} together?", "Tell me {x} plus {y}.", "Work out {x} plus {y}.",
    "{n} has {x} {t} and finds {y} more. How many {t} does {n} have now?",
    "{n} has {x} {t} and {m} has {y} {t}. How many {t} are there in all?",
    "There are {x} {t} in the house and {y} {t} in the garden. How many {t} are there?",
    "{n} buys {x} {t} and then {y} {t}. How many {t} does {n} buy?",
    "First there were {x} {t}, then {y} more came. How many are there now?",
    "{n} got {x} {t} from {m} and {y} from a friend. How many {t} did {n} get?",
)  # fmt: skip
MINUS = (
    "What is {x} minus {y}?", "How much is {x} minus {y}?", "{x} - {y}", "What is {x} - {y}?", "Take {y} away from {x}.",
    "Subtract {y} from {x}.", "What is the difference of {x} and {y}?", "Calculate {x} - {y}.", "{x} minus {y} is what?",
    "Can you subtract {y} from {x}?", "{x} take away {y} is how much?", "Tell me {x} minus {y}.", "Work out {x} minus {y}.",
    "{n} has {x} {t} and gives {y} of them away. How many {t} are left?",
    "{n} had {x} {t} and lost {y}. How many {t} does {n} still have?",
    "There were {x} {t} by the lake, but {y} of them are gone. How many are left?",
    "{n} has {x} {t} and sells {y} to {m}. How many {t} does {n} keep?",
    "From {x} {t} we take {y}. How many {t} remain?",
    "{x} {t} lay on the table and {y} fell down. How many {t} are still there?",
)  # fmt: skip
TIMES = (
    "What is {x} times {y}?", "How much is {x} times {y}?", "{x} * {y}", "What is {x} * {y}?", "Multiply {x} by {y}.",
    "Multiply {x} and {y}.", "What is the product of {x} and {y}?", "Calculate {x} * {y}.", "{x} times {y} is what?",
    "Can you multiply {x} by {y}?", "Tell me {x} times {y}.", "Work out {x} times {y}.", "How much is {x} multiplied by {y}?",
    "There are {x} baskets with {y} {t} in each basket. How many {t} are there in all?",
    "{n} has {x} boxes and each box holds {y} {t}. How many {t} does {n} have?",
    "{n} gives each of {x} friends {y} {t}. How many {t} does {n} give away?",
    "Each of {x} shelves holds {y} {t}. How many {t} are on the shelves?",
    "{n} makes {y} {t} each day for {x} days. How many {t} is that?",
)  # fmt: skip
SUM_HELD = {
    "dev": {
        "+": ("Could you tell me {x} plus {y}?", "{n} owns {x} {t} and gets {y} more. How many {t} does {n} own?"),
        "-": ("Could you tell me {x} minus {y}?", "{n} has {x} {t} and drops {y}. How many {t} are left?"),
        "*": ("Could you tell me {x} times {y}?", "{n} fills {x} bags with {y} {t} each. How many {t} is that in all?"),
    },
    "final": {
        "+": ("I want to know {x} plus {y}.", "Please add {x} and {y}.", "{n} has {x} {t}, and {m} brings {y} more. How many {t} does {n} have now?"),
        "-": ("I want to know {x} minus {y}.", "Please subtract {y} from {x}.", "{n} has {x} {t} and {m} takes {y} of them. How many {t} are left?"),
        "*": ("I want to know {x} times {y}.", "Please multiply {x} by {y}.", "{n} has {x} baskets with {y} {t} in each. How many {t} does {n} have?"),
    },
}  # fmt: skip
PLURALS = "apples nuts coins books eggs shells stones flowers pears cups".split()


def numbers(rng: random.Random, sign: str, asked: str) -> tuple[int, int]:
    """Operands: a fifth of all pairs is never in a training conversation."""
    while True:
        if sign == "*":
            x, y = rng.randint(2, 12), rng.randint(2, 20)
        else:
            x, y = rng.randint(2, 99), rng.randint(2, 99)
            if rng.random() < 0.05:
                x = rng.randint(100, 300)
        if sign == "-" and x < y:
            x, y = y, x
        if (share("sum", sign, x, y) < 0.2) == (asked != "train") and x != y:
            return x, y


def arithmetic(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    """A sum for the calculator; the answer says what the tool gave."""
    sign = rng.choice("++--*")
    x, y = numbers(rng, sign, asked)
    frames = (
        {"+": PLUS, "-": MINUS, "*": TIMES}[sign] if asked == "train" else SUM_HELD[asked][sign]
    )
    one, two = rng.sample(people, 2)
    question = rng.choice(frames).format(x=x, y=y, n=one.name, m=two.name, t=rng.choice(PLURALS))
    result = {"+": x + y, "-": x - y, "*": x * y}[sign]
    return Turn(question, call(f"{x}{sign}{y}", str(result), f"That makes {result}."), str(result))


def call(expression: str, output: str, then: str) -> list[dict[str, str]]:
    """The parts of an answer that uses the calculator."""
    return [
        {"type": "python", "text": expression},
        {"type": "python_output", "text": output},
        {"type": "text", "text": then},
    ]


# Talk.

STORY = (
    "Tell me a story about {t}.", "Tell a story about {t}.", "I want a story about {t}.", "Can you tell a story about {t}?",
    "Please tell me a story about {t}.", "Do you know a story about {t}?", "A story about {t}, please.",
)  # fmt: skip


def story_request(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    topic = rng.choice([rng.choice(list(ANIMALS)), rng.choice(OBJECTS), rng.choice(people).name])
    named = topic if topic[0].isupper() else rng.choice((a(topic), f"the {topic}"))
    told = story(rng, people, topic)
    begin = f"This is a story about {named}. "
    return Turn(rng.choice(STORY).format(t=named), begin + told, topic)


SMALL_TALK = (
    (("Hello!", "Hi!", "Good morning!", "Hi there!", "Hello Pip!", "Good evening!", "Hey!"), f"Hello! Ask me about {VALLEY}."),
    (("Thank you!", "Thanks!", "Thank you very much.", "Thanks a lot!", "That helps, thanks."), "You are welcome."),
    (("How are you?", "How do you do?", "Are you well?", "How is it going?"), "I am well, thank you."),
    (("Goodbye!", "Bye!", "See you soon!", "Good night!"), "Goodbye! Come again."),
    (("Do you like me?", "You are nice.", "I like you.", "You are clever."), "That is kind of you."),
)  # fmt: skip


def small_talk(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    said, answer = rng.choice(SMALL_TALK)
    return Turn(rng.choice(said), answer)


def favourite(rng: random.Random, people: tuple[Person, ...], asked: str) -> Turn:
    """Who shares a dish or a hobby: answered by naming one who does."""
    kind, values = rng.choice((("food", FOODS), ("hobby", HOBBIES)))
    options = [p for p in people if not held_out(p, kind)]
    person = rng.choice(options)
    value = getattr(person, kind)
    first = min(p.name for p in options if getattr(p, kind) == value)
    named = next(p for p in people if p.name == first)
    question = {"food": "Who loves to eat {v}?", "hobby": "Who enjoys {v}?"}[kind].format(v=value)
    return Turn(question, say.statement(named, kind), first)


def as_text(answer: Any) -> str:
    """An answer without its tool calls."""
    return answer if isinstance(answer, str) else answer[-1]["text"]
