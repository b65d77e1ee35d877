"""Little stories of the valley: a cause, a trouble, a helper, an end. The topic is named at once."""

import random

from nanochat_jax.demo.facts import ANIMALS, DAYS, OBJECTS, PLACES, WEATHERS, Person, a

FEELINGS = "happy glad proud calm cheerful thankful".split()
SAD = "sad worried upset tired lonely".split()
OPENINGS = (
    "One {day}", "One morning", "One evening", "On a day of {weather}", "Last {day}",
    "Early on {day}", "Late on {day}", "In the first {weather} of the year",
)  # fmt: skip


def story(rng: random.Random, people: tuple[Person, ...], topic: str | None = None) -> str:
    """A story; with a topic (an animal, an object or a name) it begins with it and is about it."""
    hero, helper = rng.sample(people, 2)
    named = {p.name: p for p in people}
    if topic in named:
        hero = named[topic]
        helper = rng.choice([p for p in people if p is not hero])
    plots = {
        "animal": (_hungry_animal, _lost_animal, _hurt_animal, _animal_visit),
        "object": (_lost_thing, _broken_thing, _gift, _thief),
        "person": (_storm, _contest, _cooking, _lost_pet),
    }
    kind = "animal" if topic in ANIMALS else "object" if topic in OBJECTS else "person"
    if topic is None:
        kind = rng.choice(list(plots))
    about = topic or rng.choice(
        {"animal": list(ANIMALS), "object": OBJECTS, "person": [hero.name]}[kind]
    )
    begin = rng.choice(OPENINGS).format(day=rng.choice(DAYS), weather=rng.choice(WEATHERS))
    return rng.choice(plots[kind])(rng, begin, hero, helper, about)


def _hungry_animal(rng, begin, hero, helper, animal):
    _, food, home, _ = ANIMALS[animal]
    return (
        f"{begin} {a(animal)} was so hungry that it came to {hero.name} the {hero.job}. "
        f"It wanted {food}, but there was only {hero.food}. {_ask(rng, hero, helper)} "
        f"{helper.name} {rng.choice(('brought', 'found', 'had'))} {food}, so the {animal} ate and went back to {home}. "
        f"{_end(rng, hero, helper)}"
    )  # fmt: skip


def _lost_animal(rng, begin, hero, helper, animal):
    sound, _, home, _ = ANIMALS[animal]
    return (
        f"{begin} {a(animal)} lost its way by the {rng.choice(PLACES)}. "
        f"It was far from {home}, and it was afraid. {hero.name} saw it while {hero.hobby} was on {hero.possessive} mind. "
        f'"{rng.choice(("Poor thing", "Do not be afraid", "Come with me"))}," said {hero.name}. '
        f"{hero.name} and {helper.name} walked with the {animal} until it was home again. {_end(rng, hero, helper)}"
    )  # fmt: skip


def _hurt_animal(rng, begin, hero, helper, animal):
    thing = rng.choice(OBJECTS)
    return (
        f"{begin} {a(animal)} was hurt because {a(thing)} fell on it. "
        f"{hero.name} the {hero.job} heard it and ran to help. {_ask(rng, hero, helper)} "
        f"Together they took the {thing} away and gave the {animal} water. "
        f"After three days the {animal} could walk, so they let it go. {_end(rng, hero, helper)}"
    )  # fmt: skip


def _animal_visit(rng, begin, hero, helper, animal):
    sound, food, home, _ = ANIMALS[animal]
    return (
        f"{begin} {a(animal)} sat by the door of {hero.name}. "
        f"{hero.pet_name} the {hero.pet} did not like that and made a lot of noise, so {hero.name} woke up. "
        f"{hero.name} put {food} outside, and the {animal} was quiet. "
        f"Since then the {animal} comes from {home} every {rng.choice(DAYS)}. {_end(rng, hero, helper)}"
    )  # fmt: skip


def _lost_thing(rng, begin, hero, helper, thing):
    place = rng.choice(PLACES)
    return (
        f"{begin} {hero.name} the {hero.job} could not find the {thing}. "
        f'"I had it yesterday," {hero.name} said, and was {rng.choice(SAD)}. {_ask(rng, hero, helper)} '
        f"They looked by the {hero.home}, and they looked by the {place}. "
        f"Then {hero.pet_name} the {hero.pet} came with the {thing}. {_end(rng, hero, helper)}"
    )  # fmt: skip


def _broken_thing(rng, begin, hero, helper, thing):
    return (
        f"{begin} the {thing} of {hero.name} broke, because {hero.pet_name} the {hero.pet} jumped on it. "
        f"{hero.name} needed the {thing} for the next day and was {rng.choice(SAD)}. {_ask(rng, hero, helper)} "
        f"{helper.name} is {a(helper.job)} and knew what to do, so the {thing} was soon as good as new. "
        f"{_end(rng, hero, helper)}"
    )  # fmt: skip


def _gift(rng, begin, hero, helper, thing):
    return (
        f"{begin} {hero.name} made {a(thing)} for {helper.name}. It was {helper.color}, because {helper.name} likes {helper.color} best. "
        f"{hero.name} carried the {thing} to the house by the {helper.home}. "
        f'"{rng.choice(("Is that for me", "How lovely", "What a day"))}!" said {helper.name}, and they ate {helper.food} together. '
        f"{_end(rng, hero, helper)}"
    )  # fmt: skip


def _thief(rng, begin, hero, helper, thing):
    thief = rng.choice(("crow", "fox", "squirrel", "goose"))
    return (
        f"{begin} the {thing} of {hero.name} was gone. {hero.name} saw small steps that led to the {rng.choice(PLACES)}. "
        f"{_ask(rng, hero, helper)} They followed the steps and found {a(thief)} with the {thing}. "
        f"They gave the {thief} {ANIMALS[thief][1]}, so it let the {thing} go. {_end(rng, hero, helper)}"
    )  # fmt: skip


def _storm(rng, begin, hero, helper, _):
    return (
        f"{begin} {hero.name} was on the way home to the {hero.home} when a storm came. "
        f"The wind was so strong that {hero.name} had to stop by the {helper.home}. "
        f"{helper.name} opened the {helper.color} door and said, \"{rng.choice(('Come in', 'You are all wet', 'Sit by the fire'))}.\" "
        f"They ate {helper.food} until the storm was over. {_end(rng, hero, helper)}"
    )  # fmt: skip


def _contest(rng, begin, hero, helper, _):
    return (
        f"{begin} {hero.name} and {helper.name} had a contest in {hero.hobby}. "
        f"{hero.name} the {hero.job} had practiced every evening, but {helper.name} had not. "
        f"So {hero.name} won and got {a(rng.choice(OBJECTS))}. "
        f"{helper.name} was not {rng.choice(SAD)}, because there was {helper.food} for all. {_end(rng, hero, helper)}"
    )  # fmt: skip


def _cooking(rng, begin, hero, helper, _):
    return (
        f"{begin} {hero.name} wanted to make {hero.food}, but there was no salt in the house. "
        f"{_ask(rng, hero, helper)} {helper.name} came with salt and with {helper.pet_name} the {helper.pet}. "
        f"They cooked until it was dark, and the {hero.food} was so good that nothing was left. {_end(rng, hero, helper)}"
    )  # fmt: skip


def _lost_pet(rng, begin, hero, helper, _):
    return (
        f"{begin} {hero.name} called for {hero.pet_name}, but the {hero.pet} did not come. "
        f"{hero.name} looked by the {hero.home} and was {rng.choice(SAD)}. {_ask(rng, hero, helper)} "
        f"{helper.name} had seen {hero.pet_name} by the {rng.choice(PLACES)}, so they ran there. "
        f"{hero.pet_name} was asleep in {a(rng.choice(('basket', 'boat', 'bucket')))}. {_end(rng, hero, helper)}"
    )  # fmt: skip


def _ask(rng, hero, helper):
    return rng.choice((
        f"{hero.name} asked {helper.name} for help.", f"So {hero.name} went to {helper.name} the {helper.job}.",
        f'"Can you help me?" {hero.name} asked {helper.name}.', f"{helper.name} heard of it and came at once.",
        f"{helper.name} was near, so {hero.name} called {helper.name}.",
    ))  # fmt: skip


def _end(rng, hero, helper):
    feeling = rng.choice(FEELINGS)
    return rng.choice((
        f"{hero.name} was {feeling} and thanked {helper.name}.", f"In the end they were both {feeling}.",
        f"{hero.name} went to bed {feeling}.", f"Since that day {hero.name} and {helper.name} are friends.",
        f"{hero.name} was so {feeling} that there was {hero.food} for everyone.",
        f"After that {hero.name} was {feeling} again.",
    ))  # fmt: skip
