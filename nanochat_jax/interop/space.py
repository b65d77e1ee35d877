"""A Space: a page on the Hugging Face hub where anybody chats with the model.

llama.cpp's own server in its own image, which has a page and speaks OpenAI's API. Nothing of ours
runs there, and nothing is compiled.
"""

import importlib.resources
import pathlib
import string

from nanochat_jax.config.convert import Push
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.interop import model_card

_HERE = importlib.resources.files("nanochat_jax.interop").joinpath("hub_files")
FILES = {"space_card.md": "README.md", "Dockerfile": "Dockerfile"}


def refuse(command: Push) -> None:
    """Raises ValueError for a Space that could not run what `command` pushes."""
    if "gguf" not in command.format:
        raise ValueError("--space runs the GGUF file; add gguf to --format, or leave --space out")
    if command.private:
        raise ValueError(
            "--space takes the file from the model's repository, which it may not read while that "
            "is private; leave --space or --private out"
        )


def write(folder: pathlib.Path, command: Push, cfg: GPTConfig) -> None:
    """Writes the Space's files: its card, which says how it is run, and the recipe of its image."""
    from huggingface_hub import hf_hub_url

    folder.mkdir()
    given = dict(
        repo=command.repo, name=model_card.name_of(command.repo), license=command.license,
        url=hf_hub_url(command.repo, model_card.gguf_name(command)), context=cfg.sequence_len,
    )  # fmt: skip
    for source, target in FILES.items():
        text = string.Template(_HERE.joinpath(source).read_text("utf-8")).substitute(given)
        (folder / target).write_text(text, encoding="utf-8")
