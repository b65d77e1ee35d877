"""The embedded world: the valley of Willowmere, its people, animals and things, drawn by a seed."""

import dataclasses
import hashlib
import random

VALLEY = "Willowmere"
ASSISTANT = "Pip"

SHE = "Mira Rosa Nessa Lena Cleo Edda Greta Iris Kaya Maud".split()
HE = "Odo Ivo Finn Tavo Bram Dario Fritz Hugo Jonas Luca".split()
JOBS = (
    "baker carpenter painter farmer teacher doctor sailor tailor miller potter hunter gardener "
    "weaver singer smith cook writer fisher builder clockmaker"
).split()
PLACES = (
    "mill lake bridge forest harbor market tower orchard meadow chapel quarry spring hill dune "
    "marsh garden"
).split()
PETS = "cat dog duck goat rabbit parrot pony turtle hen mouse sheep donkey".split()
PET_NAMES = (
    "Socks Clover Pepper Biscuit Pebble Ginger Button Mango Waffle Nutmeg Cricket Juniper Maple "
    "Tinker Bramble Olive Puddle Rusty Teddy Velvet"
).split()
FOODS = (
    "apple pie|walnut bread|baked potatoes|onion soup|plum cake|fried fish|honey toast|pea stew|"
    "goat cheese|carrot salad|mushroom rice|pear jam|corn cakes|cherry tart|bean soup|berry pudding"
).split("|")
COLORS = "red blue green yellow purple orange silver brown".split()
HOBBIES = (
    "fishing|painting|singing|dancing|reading|knitting|swimming|hiking|chess|drumming|baking|"
    "sailing|juggling|skating|gardening|riding"
).split("|")

# animal: (sound it makes, what it eats, where it lives, number of legs)
ANIMALS: dict[str, tuple[str, str, str, str]] = {
    "fox": ("yelps", "berries and mice", "a den", "four"),
    "owl": ("hoots", "mice", "a hollow tree", "two"),
    "bear": ("growls", "honey and fish", "a cave", "four"),
    "wolf": ("howls", "deer", "the deep forest", "four"),
    "frog": ("croaks", "flies", "the pond", "four"),
    "bee": ("buzzes", "nectar", "a hive", "six"),
    "ant": ("makes no sound", "crumbs", "an anthill", "six"),
    "spider": ("makes no sound", "flies", "a web", "eight"),
    "crow": ("caws", "seeds and worms", "a tall nest", "two"),
    "lion": ("roars", "meat", "the dry plain", "four"),
    "snake": ("hisses", "eggs and mice", "a hole", "no"),
    "horse": ("neighs", "hay", "a stable", "four"),
    "pig": ("grunts", "turnips", "a sty", "four"),
    "goose": ("honks", "grass", "the river bank", "two"),
    "squirrel": ("chatters", "nuts", "an oak", "four"),
    "otter": ("whistles", "fish", "the river", "four"),
    "bat": ("squeaks", "moths", "an attic", "two"),
    "beetle": ("clicks", "leaves", "the bark of a tree", "six"),
}
OBJECTS = (
    "key map lamp basket rope bucket hat bell coin boat kite drum spoon blanket letter ring book "
    "umbrella ladder candle"
).split()
WEATHERS = "rain snow wind fog sunshine hail thunder frost mist drizzle".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

ATTRIBUTES = ("job", "home", "pet", "pet_name", "food", "color", "hobby")
COUPLED = {"pet_name": "pet"}  # held out together: one gives the other away
HELD_OUT_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Person:
    """One inhabitant; attributes as the sentences use them."""

    name: str
    she: bool
    job: str
    home: str
    pet: str
    pet_name: str
    food: str
    color: str
    hobby: str

    @property
    def pronoun(self) -> str:
        return "She" if self.she else "He"

    @property
    def possessive(self) -> str:
        return "her" if self.she else "his"


def make_people(seed: int) -> tuple[Person, ...]:
    """The twenty people; jobs and pet names are unique, other attributes may be shared."""
    rng = random.Random(seed)
    names = [(n, True) for n in SHE] + [(n, False) for n in HE]
    rng.shuffle(names)
    jobs, pet_names = rng.sample(JOBS, len(JOBS)), rng.sample(PET_NAMES, len(PET_NAMES))
    drawn = {
        key: _spread(rng, values, len(names))
        for key, values in (
            ("home", PLACES),
            ("pet", PETS),
            ("food", FOODS),
            ("color", COLORS),
            ("hobby", HOBBIES),
        )
    }
    return tuple(
        Person(name, she, jobs[i], pet_name=pet_names[i], **{k: v[i] for k, v in drawn.items()})
        for i, (name, she) in enumerate(names)
    )


def share(*words: object) -> float:
    """A number in [0, 1) that depends on the words alone: how things are held out, for good."""
    text = "|".join(map(str, words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64


def held_out(person: Person, attribute: str) -> bool:
    """Whether a fact occurs in documents only and is never asked in a conversation."""
    return share("fact", person.name, COUPLED.get(attribute, attribute)) < HELD_OUT_SHARE


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _spread(rng: random.Random, values: list[str], count: int) -> list[str]:
    """`count` values, each used about equally often, in random order."""
    many = [v for _ in range(-(-count // len(values))) for v in rng.sample(values, len(values))]
    chosen = many[:count]
    rng.shuffle(chosen)
    return chosen
