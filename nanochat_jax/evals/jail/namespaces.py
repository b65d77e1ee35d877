"""A world of its own: no network, no other processes, no files but Python's, read-only.

What the program may see is listed here, not what it may not: the new root is an empty file system
in memory into which the interpreter's libraries are mounted. It vanishes with the last process.
Needs Linux 5.12 (mount_setattr), and either root or unprivileged user namespaces.
"""

import contextlib
import os
import stat

from nanochat_jax.evals.jail import libc
from nanochat_jax.evals.jail.seccomp import NUMBERS, machine

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000

NOBODY = 65534
HOME = "/tmp"  # the program's working directory inside
FILES_IN_HOME = 4096
DEVICES = ("/dev/null", "/dev/urandom")


def libraries() -> list[str]:
    """Folders and files that an interpreter without packages reads."""
    stdlib = os.path.dirname(os.__file__)
    own = [os.path.dirname(stdlib), "/nix/store"]
    shared = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo"]
    found = [p for p in [*own, *shared, "/etc/ld.so.cache"] if os.path.lexists(p)]
    below = lambda p: any(p != q and p.startswith(q + "/") for q in found)
    return [p for p in dict.fromkeys(found) if not below(p)]


def enter() -> None:
    """Leaves the host's namespaces; the next child is process 1 of the new ones."""
    uid, gid = os.geteuid(), os.getegid()
    flags = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
    if uid == 0:
        with contextlib.suppress(PermissionError):  # root without its privileges, in a container
            libc.call("unshare", flags)
            return
    libc.call("unshare", flags | NEWUSER)
    for name, text in (
        ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"),
    ):  # fmt: skip
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def build(root: str, home_bytes: int) -> None:
    """Makes `root` (an empty directory) the whole file system, and its /tmp the place to be."""
    # Private first: else the host would see every mount below.
    libc.call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    _memory(root, "size=1m,mode=755")
    for path in libraries():
        _show(root, path)
    for path in DEVICES:
        _bind(path, root + path)
    os.mkdir(root + HOME)
    _memory(root + HOME, f"size={home_bytes},nr_inodes={FILES_IN_HOME},mode=1777")
    os.chdir(root)
    libc.syscall("pivot_root", NUMBERS["pivot_root"][machine()], b".", b".")
    # The old root lies at the same place and stays reachable until it is unmounted.
    libc.call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    _restrict("/", MS_RDONLY, 0)
    os.chdir(HOME)


def drop_root() -> None:
    """From root to nobody, whose processes the kernel counts; any other user stays."""
    # Limits of the number of processes do not bind root.
    with contextlib.suppress(OSError):  # a namespace of users that knows no nobody
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)


def _memory(path: str, options: str) -> None:
    libc.call("mount", b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())


def _show(root: str, path: str) -> None:
    """Mounts `path` read-only at the same place; a link to what is mounted too stays a link."""
    if os.path.islink(path) and os.path.realpath(path) in libraries():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(os.readlink(path), root + path)
        return
    _bind(path, root + path)
    _restrict(root + path, MS_RDONLY | MS_NOSUID | MS_NODEV, AT_RECURSIVE)


def _bind(path: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if stat.S_ISDIR(os.stat(path).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    libc.call("mount", path.encode(), target.encode(), None, MS_BIND | MS_REC, None)


def _restrict(path: str, flags: int, how: int) -> None:
    """Sets mount attributes (their bits equal the old mount flags) of a mount."""
    attributes = b"".join(n.to_bytes(8, "little") for n in (flags, 0, 0, 0))
    number = NUMBERS["mount_setattr"][machine()]
    libc.syscall("mount_setattr", number, AT_FDCWD, path.encode(), how, attributes, len(attributes))
