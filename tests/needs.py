"""What some tests need and not every machine has. A name that leads nowhere is an error."""

import os
import shutil
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def folder(variable: str, *defaults: Path) -> Path:
    """The folder that the environment names, else the first default that exists, or the last.

    Raises:
        pytest.UsageError: the environment names one that does not exist, or none without a default.
    """
    if (named := os.environ.get(variable)) or not defaults:
        if not named or not Path(named).is_dir():
            raise pytest.UsageError(f"${variable} is {named or ''!r}; expected a folder")
        return Path(named).absolute()
    return next(filter(Path.is_dir, defaults), defaults[-1])


TASK_DATA = folder("NANOCHAT_TASK_DATA", BESIDE / "data")
task_data = pytest.mark.skipif(
    not TASK_DATA.is_dir(),
    reason=f"no task files in {TASK_DATA}; set $NANOCHAT_TASK_DATA to a folder",
)


def chromium() -> str:
    """The system's browser. Without one the test is skipped, or in CI (`$CI`) fails."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "no Chromium: apt-get install chromium"
        )
    return found
