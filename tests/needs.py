"""What some tests need and not every machine has.

A test is skipped where a machine cannot have what it needs. Where it was promised, it fails: a
folder that the environment names, a package in the environment of `make test-all`, and in CI a
browser and a sandbox.
"""

import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path
from types import ModuleType

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


def package(name: str) -> ModuleType:
    """A package that only the environment of `make test-all` has, which must have it."""
    if os.environ.get("NANOCHAT_TEST_ALL"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"make test-all has {name.split('.')[0]}")


def llama() -> None:
    """llama.cpp, which takes minutes to compile: `make test-llama` brings it."""
    reason = "no llama-cpp-python here; make test-llama brings it"
    if os.environ.get("NANOCHAT_TEST_LLAMA"):
        importlib.import_module("llama_cpp")
    pytest.importorskip("llama_cpp", reason=reason)


def missing(what: str) -> None:
    """Skips a test for want of something that a machine may lack; in CI (`$CI`) it fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


def linux(what: str) -> None:
    """For tests of what Linux alone has; in CI that is promised."""
    if sys.platform != "linux":
        missing(f"{what}: Linux alone has it")


def glibc() -> None:
    """For tests of what its allocator does; in CI that is promised."""
    if platform.libc_ver()[0] != "glibc":
        missing("the C library is not glibc")


def nginx() -> str:
    """The system's nginx, or the one that `make test-all` unpacks into its environment."""
    places = (os.environ.get("PATH", ""), "/usr/sbin", f"{sys.prefix}/nginx/usr/sbin")
    found = shutil.which("nginx", path=os.pathsep.join(places))
    return found or missing("no nginx: apt-get install nginx")


def chromium() -> str:
    """The system's browser."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or missing("no Chromium: apt-get install chromium")


CUDA_COMPILER = ("jax_cuda12_plugin", "nvidia.cudnn", "nvidia.cuda_nvcc")


def cuda_compiler() -> None:
    """JAX's compiler for NVIDIA GPUs, which needs none: `make test-gpu` must have it."""
    if lacking := without(*CUDA_COMPILER):
        (pytest.fail if os.environ.get("NANOCHAT_TEST_GPU") else pytest.skip)(
            f"no {', '.join(lacking)}: make test-gpu has JAX's compiler for GPUs"
        )


def without(*names: str) -> list[str]:
    """Those of the packages that are not here."""
    return [name for name in names if not _exists(name)]


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
