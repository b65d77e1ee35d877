"""How the world is put into words: statements, questions, and the ways round a question.

Each attribute has one canonical statement (its first), which is also the answer to every question
about it: a small model learns one sentence for a fact, and holds to it when it is sampled.
"""

from nanochat_jax.demo.facts import Person, a

# Statements: {n} name (or pronoun, where a sentence follows another), {v} value, {p} his or her.
STATEMENTS: dict[str, tuple[str, ...]] = {
    "job": (
        "{n} works as {av}.", "{n} is {av} by trade.", "{n} has been {av} for many years.",
        "{n} earns a living as {av}.", "Everyone knows that {n} is {av}.",
        "{n} is the only {v} in the valley.",
    ),
    "home": (
        "{n} lives by the {v}.", "{n} has a small house by the {v}.", "The home of {n} is by the {v}.",
        "{n} sleeps in a house by the {v}.", "You can find {n} by the {v}.",
        "{n} grew up by the {v} and still lives there.",
    ),
    "pet": (
        "{n} keeps {av}.", "{n} takes care of {av}.", "The pet of {n} is {av}.",
        "{n} has {av} at home.", "{n} would not give {p} {v} away.", "{n} goes everywhere with {p} {v}.",
    ),
    "pet_name": (
        "{n} has a pet called {v}.", "The pet of {n} is called {v}.", "{n} calls {p} pet {v}.",
        "{v} is the name of the pet of {n}.", "{n} is looking after {v}.", "{v} belongs to {n}.",
    ),
    "food": (
        "{n} loves to eat {v}.", "The favorite food of {n} is {v}.", "{n} could eat {v} every day.",
        "{n} often asks for {v}.", "Nothing tastes better to {n} than {v}.", "For supper {n} wants {v}.",
    ),
    "color": (
        "{n} likes the color {v} best.", "The favorite color of {n} is {v}.", "{n} often wears {v}.",
        "{n} painted {p} door {v}.", "{n} thinks that {v} is the prettiest color.",
        "Most things of {n} are {v}.",
    ),
    "hobby": (
        "{n} enjoys {v} after work.", "{n} spends the evening {v}." , "The hobby of {n} is {v}.",
        "{n} has been fond of {v} for years.", "In {p} free time {n} likes {v}.",
        "On Sunday {n} is busy with {v}.",
    ),
}  # fmt: skip

# Questions asked outright, and the clause for "Can you tell me ...?". {n} is the person.
DIRECT: dict[str, tuple[str, ...]] = {
    "job": (
        "What does {n} work as?", "What is the job of {n}?", "What work does {n} do?",
        "What does {n} do for a living?", "Which job does {n} have?", "What is {n} by trade?",
        "How does {n} earn money?",
    ),
    "home": (
        "Where does {n} live?", "Where is the home of {n}?", "Where is the house of {n}?",
        "In which place does {n} live?", "Where can I find {n}?", "Where does {n} sleep?",
        "Near what does {n} live?",
    ),
    "pet": (
        "What animal does {n} keep?", "What kind of pet does {n} have?", "Which pet does {n} have?",
        "What pet does {n} own?", "Which animal lives with {n}?", "What sort of animal is the pet of {n}?",
        "Does {n} keep an animal, and which?",
    ),
    "pet_name": (
        "What is the pet of {n} called?", "What is the name of the pet of {n}?",
        "How does {n} call the pet?", "Which name does the pet of {n} have?",
        "What name did {n} give the pet?", "By which name does {n} call the pet?",
    ),
    "food": (
        "What does {n} love to eat?", "What is the favorite food of {n}?", "What food does {n} like best?",
        "Which dish does {n} love?", "What does {n} like to eat?", "What should I cook for {n}?",
        "What does {n} want for supper?",
    ),
    "color": (
        "What color does {n} like best?", "What is the favorite color of {n}?", "Which color does {n} like?",
        "Which color is the favorite of {n}?", "What color does {n} love?", "What color does {n} wear?",
    ),
    "hobby": (
        "What does {n} enjoy after work?", "What is the hobby of {n}?", "What does {n} like to do for fun?",
        "Which hobby does {n} have?", "How does {n} spend free time?", "What does {n} do in the evening?",
        "What is {n} fond of doing?",
    ),
}  # fmt: skip
CLAUSES: dict[str, tuple[str, ...]] = {
    "job": ("what {n} works as", "which job {n} has", "what {n} does for a living"),
    "home": ("where {n} lives", "where the house of {n} is", "where to find {n}"),
    "pet": ("which pet {n} has", "what animal {n} keeps", "what kind of pet {n} has"),
    "pet_name": ("what the pet of {n} is called", "the name of the pet of {n}"),
    "food": ("what {n} loves to eat", "which food {n} likes best", "the favorite food of {n}"),
    "color": ("which color {n} likes best", "the favorite color of {n}", "what color {n} likes"),
    "hobby": ("what {n} enjoys after work", "which hobby {n} has", "what {n} does for fun"),
}
# Ways round a clause: trained ones, and for each probe set others that are never trained.
WRAPS = (
    "Can you tell me {c}?", "Do you know {c}?", "Tell me {c}.", "I would like to know {c}.",
    "Please tell me {c}.", "Could you tell me {c}?", "I want to know {c}.", "Say {c}.",
    "Do you remember {c}?", "I forgot {c}.", "Can you say {c}?", "Please say {c}.",
)  # fmt: skip
HELD_WRAPS = {
    "dev": ("I am curious {c}.", "Would you know {c}?", "Can you remember {c}?", "Let me know {c}."),
    "final": (
        "Would you tell me {c}?", "I wonder {c}.", "Could you say {c}?", "Please let me know {c}.",
        "I would love to know {c}.", "Do you happen to know {c}?",
    ),
}  # fmt: skip
HELD_DIRECT: dict[str, dict[str, str]] = {
    "dev": {
        "job": "What is the work of {n}?", "home": "Where does {n} have a house?",
        "pet": "What animal does {n} have?", "pet_name": "What does {n} call the pet?",
        "food": "Which food does {n} love?", "color": "Which color does {n} love?",
        "hobby": "What hobby does {n} enjoy?",
    },
    "final": {
        "job": "Which work does {n} do?", "home": "In which house does {n} live, and where?",
        "pet": "What kind of animal does {n} keep?", "pet_name": "The pet of {n}: what is it called?",
        "food": "What food does {n} love to eat?", "color": "What is the color that {n} likes best?",
        "hobby": "What hobby does {n} have?",
    },
}  # fmt: skip
REVERSE: dict[str, tuple[str, ...]] = {
    "job": ("Who is the {v}?", "Who works as {av}?", "Tell me who the {v} is.", "Do you know who works as {av}?"),
    "pet_name": ("Whose pet is {v}?", "Who has a pet called {v}?", "To whom does {v} belong?", "Tell me who owns {v}."),
}  # fmt: skip

ANIMAL_ASPECTS = ("sound", "food", "home", "legs")
ANIMAL_STATEMENTS = {
    "sound": ("The {n} {v}.", "A {n} {v} when it is awake.", "Listen, the {n} {v}."),
    "food": ("The {n} eats {v}.", "A {n} likes to eat {v}.", "A hungry {n} looks for {v}."),
    "home": ("The {n} lives in {v}.", "A {n} has its home in {v}.", "At night the {n} sleeps in {v}."),
    "legs": ("The {n} has {v} legs.", "A {n} stands on {v} legs.", "Count them: a {n} has {v} legs."),
}  # fmt: skip
ANIMAL_QUESTIONS = {
    "sound": ("What sound does the {n} make?", "How does {an} {n} sound?", "What noise does the {n} make?", "Which sound does {an} {n} make?"),
    "food": ("What does the {n} eat?", "What does {an} {n} like to eat?", "What is the food of the {n}?", "Which food does {an} {n} eat?"),
    "home": ("Where does the {n} live?", "Where is the home of the {n}?", "In what does {an} {n} live?", "Where does {an} {n} sleep?"),
    "legs": ("How many legs does the {n} have?", "How many legs does {an} {n} have?", "On how many legs does the {n} walk?", "What number of legs does the {n} have?"),
}  # fmt: skip
ANIMAL_CLAUSES = {
    "sound": ("what sound the {n} makes", "which noise {an} {n} makes"),
    "food": ("what the {n} eats", "what {an} {n} likes to eat"),
    "home": ("where the {n} lives", "where {an} {n} sleeps"),
    "legs": ("how many legs the {n} has", "how many legs {an} {n} has"),
}


def statement(person: Person, attribute: str, form: int = 0, subject: str | None = None) -> str:
    """A sentence that states a fact; form 0 is the canonical one."""
    value = getattr(person, attribute)
    return STATEMENTS[attribute][form].format(
        n=subject or person.name, v=value, av=a(value), p=person.possessive
    )


def reverse_statement(person: Person, attribute: str) -> str:
    """The answer to who is meant: the canonical statement, which names the person first."""
    return statement(person, attribute)


def animal_statement(animal: str, aspect: str, value: str, form: int = 0) -> str:
    """A sentence about an animal; form 0 is the canonical one."""
    return ANIMAL_STATEMENTS[aspect][form].format(n=animal, v=value).replace("A o", "An o").replace("A a", "An a").replace("a a", "an a").replace("a o", "an o")  # fmt: skip
