"""A process that trains on a CPU has large pages from its start, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from nanochat_jax.cpu_process import LARGE_PAGES, TUNABLES, environment
from tests import needs


def test_what_the_user_has_set_stands_and_other_c_libraries_get_nothing():
    assert environment("glibc", {}) == {TUNABLES: LARGE_PAGES}
    assert environment("glibc", {TUNABLES: "glibc.malloc.check=1"}) == {}
    assert environment("", {}) == {}  # what Python says of others, such as musl


BEGINS = """
import os, sys
from nanochat_jax import devices
print("began", flush=True)
devices.begin_again()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("platform", "said"),
    [("cpu", ["began", "began", f"{LARGE_PAGES} ['--a', 'b c']"]),
     ("cuda", ["began", "None ['--a', 'b c']"])],
)  # fmt: skip
def test_a_program_begins_again_once_as_it_was_called_and_on_a_cpu_alone(platform, said):
    needs.glibc()
    env = {k: v for k, v in os.environ.items() if k != TUNABLES} | {"JAX_PLATFORMS": platform}
    words = [sys.executable, "-c", BEGINS, "--a", "b c"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == said
