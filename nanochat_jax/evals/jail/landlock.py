"""File access by a list of what is allowed, where a mount namespace is refused.

Needs no privilege. Linux 5.13 for files, 6.7 for TCP, 6.12 for signals to processes outside. It
does not hide names and sizes of files, nor guard owners and modes (the call filter does that).
Source: Linux `Documentation/userspace-api/landlock.rst`.
"""

import os
import stat
import struct
from collections.abc import Sequence

from nanochat_jax.evals.jail import libc

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every machine
VERSION_FLAG, PATH_BENEATH = 1, 1

READ_FILE, READ_DIR, WRITE_FILE, TRUNCATE, IOCTL = 1 << 2, 1 << 3, 1 << 1, 1 << 14, 1 << 15
OF_FILES = READ_FILE | WRITE_FILE | TRUNCATE
RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}  # by version
EXECUTE = 1
TCP = 0b11  # bind and connect
SCOPES = 0b11  # abstract sockets, signals


def restrict(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Forbids this process for good every file but these, and TCP and signals if it can."""
    # A right that the kernel's version does not know is refused as a mistake, so only its own are
    # named; what it cannot forbid, the other layers must.
    have = libc.syscall("landlock", CREATE_RULESET, None, 0, VERSION_FLAG)
    rights = RIGHTS[max(v for v in RIGHTS if v <= have)]
    words = (rights, TCP, SCOPES)[: 1 + (have >= 4) + (have >= 6)]
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = libc.syscall("landlock", CREATE_RULESET, attributes, len(attributes), 0)
    for path in readable:
        _allow(ruleset, path, READ_FILE | READ_DIR)
    for path in writable:
        _allow(ruleset, path, rights & ~(EXECUTE | IOCTL))
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    libc.syscall("landlock", RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not stat.S_ISDIR(os.fstat(parent).st_mode):
        rights &= OF_FILES
    rule = struct.pack("=Qi", rights, parent)
    libc.syscall("landlock", ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
    os.close(parent)
