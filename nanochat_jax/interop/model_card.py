"""The model card: what stands on a model's page on the Hugging Face hub.

Numbers come from the checkpoint, scores from the report; what is not known is left out.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from nanochat_jax.checkpoint import load_tokenizer
from nanochat_jax.checkpoint.store import Saved
from nanochat_jax.config.convert import Push
from nanochat_jax.config.gpt import param_counts
from nanochat_jax.data import ledger
from nanochat_jax.interop import apertus
from nanochat_jax.report import about, stored
from nanochat_jax.results import CONTAMINATION, EVALUATION, Check, Score

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("nanochat_jax.interop", "hub_files"), trim_blocks=True,
    undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
)  # fmt: skip
CHAT = ("mid", "sft", "rl")
# The hub's names of programs that load a repository: the first format of these that is in it.
LIBRARIES = dict(
    apertus="transformers", huggingface="transformers", gguf="gguf", nanochat="nanochat"
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each format lies in the repository.

    `transformers` and llama.cpp look at the top; of two folders for transformers Apertus stands
    there, which more programs run.
    """

    formats: Sequence[str]
    gguf_file: str

    def folder(self, format: str) -> str:
        """The folder of a format, "" at the top."""
        below = format == "nanochat" or (format == "huggingface" and "apertus" in self.formats)
        return format if below else ""

    @property
    def ours(self) -> str:
        """The format that this program takes back; "" without any."""
        return next((f for f in ("huggingface", "nanochat") if f in self.formats), "")

    @property
    def library(self) -> str:
        return next(name for format, name in LIBRARIES.items() if format in self.formats)


def write(path: pathlib.Path, command: Push, saved: Saved, root: pathlib.Path) -> None:
    """Writes the card of what `command` puts on the hub.

    Args:
        root: the base directory, whose report has the scores.
    """
    path.write_text(text(command, saved, root), encoding="utf-8")


def text(command: Push, saved: Saved, root: pathlib.Path) -> str:
    """The card with its front matter."""
    layout, sections = Layout(command.format, gguf_name(command)), stored.read(root)
    return _TEMPLATES.get_template("model_card.md").render(
        front=front_matter(command, layout.library), repo=command.repo, layout=layout,
        name=name_of(command.repo), stage=command.source, chats=command.source in CHAT,
        cfg=saved.cfg, parameters=param_counts(saved.cfg)["total"], training=training(saved),
        data=ledger.told(saved.meta), about=about.line,
        scores=[_row(score) for score in scores(sections, command.source, saved)],
        checks=checks(sections, command.source, saved),
        differences=differences(command, saved, root),
    )  # fmt: skip


def front_matter(command: Push, library: str) -> str:
    """What the hub sorts and filters models by, as YAML."""
    # The package is large, and other commands need none of it.
    from huggingface_hub import ModelCardData

    tags = ["nanochat", "nanochat-jax"] + ["conversational"] * (command.source in CHAT)
    return ModelCardData(
        license=command.license, library_name=library, pipeline_tag="text-generation", tags=tags
    ).to_yaml()


def training(saved: Saved) -> dict[str, Any]:
    """What a checkpoint says of its making, by name."""
    config, loop = saved.meta.get("config") or {}, saved.meta.get("loop") or {}
    imported = saved.meta.get("imported") or {}
    known = {
        "recipe": config.get("recipe"), "steps": saved.step or None, "tokens": loop.get("tokens"),
        "hours of training": loop.get("train_s") and f"{loop['train_s'] / 3600:.2f}",
        "brought in from": imported and "nanochat or transformers",
    }  # fmt: skip
    return {name: f"{x:,}" if isinstance(x, int) else x for name, x in known.items() if x}


def scores(
    sections: Mapping[str, stored.Stored], stage: str, saved: Saved
) -> Sequence[Score]:  # fmt: skip
    """The scores of this stage's evaluation, where it was one of this model."""
    found = sections.get(EVALUATION[stage])
    return found.section.scores if found and _of_this(found, saved) else ()


def checks(
    sections: Mapping[str, stored.Stored], stage: str, saved: Saved
) -> Sequence[Check]:  # fmt: skip
    """What was found when those scores were doubted."""
    found = (sections.get(titles[stage]) for titles in (EVALUATION, CONTAMINATION))
    return [check for one in found if one and _of_this(one, saved) for check in one.section.checks]


def _of_this(found: stored.Stored, saved: Saved) -> bool:
    # The report keeps the last evaluation of a stage, which may have been one of another step or
    # tag, or of an earlier model of this one.
    return saved.identity.items() <= found.section.figures.items()


def differences(command: Push, saved: Saved, root: pathlib.Path) -> list[str]:
    """What other programs compute otherwise than this one."""
    told = apertus.differences(saved.cfg) if {"apertus", "gguf"} & set(command.format) else []
    if "gguf" in command.format:
        from nanochat_jax.interop import gguf_file

        told = [*told, *gguf_file.differences(load_tokenizer(saved, root))]
    return told


def gguf_name(command: Push) -> str:
    """The name of the GGUF file."""
    return f"{name_of(command.repo)}-{command.quant}.gguf"


def name_of(repo: str) -> str:
    return repo.partition("/")[2]


def _row(score: Score) -> tuple[str, str, str, str]:
    """(name, value, 95 % interval, problems)."""
    percent = score.unit == "share"
    shown = lambda x: f"{100 * x:.1f}%" if percent else f"{x:.4f}"
    known = score.low is not None and score.high is not None
    interval = f"{shown(score.low)} to {shown(score.high)}" if known else "-"
    return score.name, shown(score.value), interval, f"{score.n:,}" if score.n else "-"
