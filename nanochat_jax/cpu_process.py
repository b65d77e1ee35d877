"""The environment of a process that trains on a CPU: large pages for what each step allocates.

XLA takes hundreds of megabytes anew in every step, and the kernel hands them out zeroed, page by
page; in pages of 2 MB it is asked 130 times less often. glibc takes those where a tunable says so.
It reads its tunables once, when a process starts. Figures: docs/log.md, 28 November 2026.
"""

from collections.abc import Mapping

TUNABLES = "GLIBC_TUNABLES"
LARGE_PAGES = "glibc.malloc.hugetlb=1"


def environment(libc: str, env: Mapping[str, str]) -> dict[str, str]:
    """Variables to set, over those of `env`, for a process on a CPU with that C library."""
    # What the user has set stands, and a process that was started with these does not start again.
    return {} if TUNABLES in env or libc != "glibc" else {TUNABLES: LARGE_PAGES}
