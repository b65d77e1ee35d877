"""Comparisons with golden numbers: held to their tolerance, the largest error of each kept.

Which test is running pytest itself tells, so that a comparison needs no more than its two sides and
the name of its tolerance; `bench/golden.py` prints what was kept.
"""

import os
import re
from typing import Any, NamedTuple

import numpy as np

from tests.golden.conftest import ERAS, TOL

RUNNING = re.compile(r"(?:.*/)?test_(?P<family>\w+)\.py::\w+(?:\[(?P<era>\w+))?.*")


class Place(NamedTuple):
    """Where a number is compared: the test file, the era, the name of the tolerance."""

    family: str
    era: str
    kind: str


LARGEST: dict[Place, float] = {}


def family_and_era(test: str) -> tuple[str, str]:
    """The test file without its `test_` and the era of a test's id; the era may be empty."""
    match = RUNNING.fullmatch(test)
    era = match["era"] if match else ""
    return (match["family"] if match else test), (era if era in ERAS else "")


def absolute(got: Any, want: Any, kind: str, what: Any = "") -> None:
    """Every number within `TOL[kind]` of the original's."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (what, got.shape, want.shape)
    same = got == want  # infinities too
    held(np.abs(np.where(same, 0.0, got - np.where(same, 0.0, want))).max(initial=0.0), kind, what)


def ratio(got: Any, want: Any, kind: str, what: Any = "") -> None:
    """Every number within a share `TOL[kind]` of the original's."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (what, got.shape, want.shape)
    size = np.maximum(np.abs(want), 1e-15 / TOL[kind])  # beside 0 a last bit is no difference
    same = got == want
    off = np.where(same, 0.0, got - np.where(same, 0.0, want))
    held((np.abs(off) / np.where(same, 1.0, size)).max(initial=0.0), kind, what)


def relative(got: Any, want: Any) -> float:
    """L2 distance as a share of the original's length; the distance itself where that is 0."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(np.linalg.norm(got - want) / (np.linalg.norm(want) or 1.0))


def tensor(got: Any, want: Any, kind: str, what: Any = "") -> None:
    """A whole tensor within a relative L2 distance of `TOL[kind]`."""
    assert np.shape(got) == np.shape(want), (what, np.shape(got), np.shape(want))
    held(relative(got, want), kind, what)


def held(error: float, kind: str, what: Any = "") -> None:
    """Asserts that an error is within `TOL[kind]`, and keeps it if it is the largest so far."""
    place = Place(*family_and_era(os.environ.get("PYTEST_CURRENT_TEST", "")), kind)
    LARGEST[place] = max(LARGEST.get(place, 0.0), float(error))
    assert error <= TOL[kind], f"{kind} {what}: off by {error:.3e}, allowed {TOL[kind]:g}"
