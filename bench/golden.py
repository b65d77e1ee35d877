"""The golden numbers, family by family: how many tests, the largest error, what is allowed.

    python bench/golden.py [pytest's own arguments]

Runs `tests/golden` on the set that `$NANOCHAT_GOLDEN` names and prints a table; ids, texts, batches
and the like are compared exactly and have no row of errors. Exit status: pytest's.
"""

import collections
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


class Outcomes:
    """A pytest plugin that counts how tests ended, by family and era."""

    def __init__(self):
        self.counts: dict[tuple[str, str], collections.Counter] = {}

    def pytest_runtest_logreport(self, report) -> None:
        from tests.golden.numbers import family_and_era

        if report.when == "call" or report.outcome != "passed":
            counter = self.counts.setdefault(family_and_era(report.nodeid), collections.Counter())
            counter[report.outcome] += 1


def main(argv: list[str]) -> int:
    outcomes = Outcomes()
    status = pytest.main(["-q", *argv, str(ROOT / "tests/golden")], [outcomes])
    print(*table(outcomes), sep="\n")
    return int(status)


def table(outcomes: Outcomes) -> list[str]:
    """The table in Markdown: a row per family and era, and one per kind of number in it."""
    from tests.golden.conftest import TOL
    from tests.golden.numbers import LARGEST

    rows = [("family", "era", "tests", "number", "largest error", "allowed", "")]
    for (family, era), counter in sorted(outcomes.counts.items()):
        bad = sum(n for outcome, n in counter.items() if outcome != "passed")
        verdict = f"{bad} not passed" if bad else "pass"
        kinds = sorted(p for p in LARGEST if (p.family, p.era) == (family, era))
        head = (family, era or "-", str(counter["passed"]))
        if not kinds:
            rows.append((*head, "exact", "0", "0", verdict))
        for place in kinds:
            error = f"{LARGEST[place]:.1e}"
            rows.append((*head, place.kind, error, f"{TOL[place.kind]:g}", verdict))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
