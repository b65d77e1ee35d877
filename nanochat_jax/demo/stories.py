"""Little stories of the valley: a cause, a trouble, a helper, an end; the topic comes at once."""

import random

from nanochat_jax.data.phrases import Phrases
from nanochat_jax.demo.facts import WORLD, Person
from nanochat_jax.demo.sentences import Scene, fields

PEOPLE = fields("hero helper")
WORDS = "begin ask thing place day sad found comfort delight welcome bed"
STORIES = Phrases("nanochat_jax.demo", "content/stories.toml", {
    "openings": "day weather", "ask": PEOPLE, "ends": f"{PEOPLE} feeling", "words": "",
    "plots": fields("hero helper", "animal thief", WORDS),
})  # fmt: skip


def story(rng: random.Random, people: tuple[Person, ...], topic: str | None = None) -> str:
    """A story; with a topic (an animal, an object or a name) it begins with it and is about it."""
    hero, helper = rng.sample(people, 2)
    if named := [p for p in people if p.name == topic]:
        [hero] = named
        helper = rng.choice([p for p in people if p is not hero])
    about_by_kind = {"animal": list(WORLD["animals"]), "thing": WORLD["objects"]}
    kind = next((k for k, words in about_by_kind.items() if topic in words), "person")
    if topic is None:
        kind = rng.choice(list(STORIES["plots"]))
    about = topic or rng.choice(about_by_kind.get(kind, [hero.name]))
    opening = rng.choice(STORIES["openings"])
    begin = opening.format(day=rng.choice(WORLD["days"]), weather=rng.choice(WORLD["weathers"]))
    plot = rng.choice(STORIES["plots"][kind])
    scene = Scene(rng, {**STORIES["words"], "ask": STORIES["ask"]}, hero=hero, helper=helper)
    scene["begin"] = begin
    scene.put(kind, about)
    scene.draw(*plot.get("first", ()))
    text = plot["text"].format_map(scene)
    scene.draw("feeling")
    return f"{text} {rng.choice(STORIES['ends']).format_map(scene)}"
