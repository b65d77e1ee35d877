"""The report on disk: a JSON file for each section, and one for the machine."""

import datetime
import json
import logging
import pathlib
from typing import Any, NamedTuple

from nanochat_jax import files
from nanochat_jax.config import paths
from nanochat_jax.report import machine
from nanochat_jax.report.machine import Machine
from nanochat_jax.results import ORDER, Section

log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """A section, and when it was written."""

    section: Section
    written: datetime.datetime


def write(root: pathlib.Path, section: Section) -> None:
    """Writes (or replaces) a section."""
    files.write_json(_file(root, section.title), {"written": now(), **section.to_json()})


def has(root: pathlib.Path, title: str) -> bool:
    """Whether a section was written since the last reset."""
    return _file(root, title).exists()


def read(root: pathlib.Path) -> dict[str, Stored]:
    """Title -> section in the report's order; a damaged file is logged by name and left out."""
    found = {title: _read(_file(root, title), _stored) for title in ORDER}
    return {title: section for title, section in found.items() if section is not None}


def begun(root: pathlib.Path) -> bool:
    """Whether `reset` has begun a report here."""
    return _header(root).exists()


def clear(root: pathlib.Path) -> None:
    """Begins anew: this machine and moment, no sections."""
    for title in ORDER:
        _file(root, title).unlink(missing_ok=True)
    files.write_json(_header(root), machine.look(now()).to_json())


def machine_of(root: pathlib.Path) -> Machine:
    """The machine that the report began on; this one, where none is known."""
    return _read(_header(root), Machine.from_json) or machine.look(now())


def set_price(root: pathlib.Path, dollars_per_hour: float) -> None:
    """Keeps the machine's real price; ValueError below zero."""
    known = machine_of(root).with_price(dollars_per_hour)
    files.write_json(_header(root), known.to_json())


def now() -> str:
    """This moment, to the second."""
    return datetime.datetime.now().isoformat(" ", "seconds")


def _stored(value: Any) -> Stored:
    section = Section.from_json(value)
    return Stored(section, datetime.datetime.fromisoformat(str(value.get("written"))))


def _read(path: pathlib.Path, parse: Any) -> Any:
    """What `parse` makes of a JSON file; None without one, or where it is damaged."""
    if not path.exists():
        return None
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # of json, of the text's encoding, or of what it holds
        log.warning("%s is damaged (%s): left out of the report", path, error)
        return None


def _header(root: pathlib.Path) -> pathlib.Path:
    return paths.report(root) / "header.json"


def _file(root: pathlib.Path, title: str) -> pathlib.Path:
    return paths.report(root) / f"{title.lower().replace(' ', '-')}.json"
