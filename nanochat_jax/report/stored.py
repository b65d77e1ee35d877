"""The report on disk: a JSON file for each section, and one for the machine."""

import dataclasses
import datetime
import json
import logging
import pathlib
from typing import Any

import numpy as np
import pydantic

from nanochat_jax import files
from nanochat_jax.config import paths
from nanochat_jax.report import machine
from nanochat_jax.report.machine import Machine
from nanochat_jax.results import ORDER, Section

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A section, when it was written, and how many seconds what it tells of took."""

    section: Section
    written: datetime.datetime
    took_s: float | None = None


# Whoever edits a file by hand, or brings one of another version, hears what is wrong with it.
STORED, MACHINE = pydantic.TypeAdapter(Stored), pydantic.TypeAdapter(Machine)


def write(root: pathlib.Path, section: Section, took_s: float | None = None) -> None:
    """Writes (or replaces) a section."""
    _write(_file(root, section.title), STORED, Stored(section, now(), took_s))


def has(root: pathlib.Path, title: str) -> bool:
    """Whether a section was written since the last reset."""
    return _file(root, title).exists()


def read(root: pathlib.Path) -> dict[str, Stored]:
    """Title -> section in the report's order; a damaged file is logged by name and left out."""
    found = {title: _read(_file(root, title), STORED) for title in ORDER}
    return {title: section for title, section in found.items() if section is not None}


def begun(root: pathlib.Path) -> bool:
    """Whether `reset` has begun a report here."""
    return _header(root).exists()


def clear(root: pathlib.Path) -> None:
    """Begins anew: this machine and moment, no sections."""
    for title in ORDER:
        _file(root, title).unlink(missing_ok=True)
    _write(_header(root), MACHINE, machine.look(now()))


def machine_of(root: pathlib.Path) -> Machine:
    """The machine that the report began on; this one, where none is known."""
    return _read(_header(root), MACHINE) or machine.look(now())


def set_price(root: pathlib.Path, dollars_per_hour: float) -> None:
    """Keeps the machine's real price; ValueError below zero."""
    _write(_header(root), MACHINE, machine_of(root).with_price(dollars_per_hour))


def now() -> datetime.datetime:
    """This moment, to the second."""
    return datetime.datetime.now().replace(microsecond=0)


def _write(path: pathlib.Path, adapter: pydantic.TypeAdapter, value: Any) -> None:
    # A figure may be a number of numpy: at the end of a long run nothing may fail on that.
    plain = lambda x: x.item() if isinstance(x, np.generic) else str(x)
    value = adapter.dump_python(value, exclude_defaults=True, warnings=False)
    # By Python's JSON, which knows NaN and infinity: pydantic's makes them null, and a score that
    # is null would cost the whole section when it is read again.
    files.write_json(path, json.loads(json.dumps(value, default=plain)))


def _read(path: pathlib.Path, adapter: pydantic.TypeAdapter) -> Any:
    """The value in a JSON file; None without one, or where it is damaged."""
    if not path.exists():
        return None
    try:
        return adapter.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except pydantic.ValidationError as error:
        why = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in error.errors())
    except ValueError as error:  # not JSON, or not UTF-8
        why = str(error)
    log.warning("%s is damaged (%s): left out of the report", path, why)
    return None


def _header(root: pathlib.Path) -> pathlib.Path:
    return paths.report(root) / "header.json"


def _file(root: pathlib.Path, title: str) -> pathlib.Path:
    return paths.report(root) / f"{title.lower().replace(' ', '-')}.json"
