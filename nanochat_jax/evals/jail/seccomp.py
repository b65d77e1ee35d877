"""A filter of system calls: no new processes, no sockets, no signals to others, no odd memory.

A list of what is refused, in x86-64 and 64-bit ARM. It needs no privilege and holds where
namespaces are refused, as in most containers. Refused calls fail with EPERM.
Source: Linux `Documentation/userspace-api/seccomp_filter.rst`; numbers of `asm/unistd.h`.
"""

import ctypes
import errno
import os
import struct

from nanochat_jax.evals.jail import libc

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000  # a second numbering of the same calls on x86-64

# name: (x86_64, aarch64); None: that machine has no such call.
NUMBERS = {
    name: dict(zip(AUDIT_ARCH, numbers, strict=True))
    for name, numbers in {
        # processes (threads are `clone` with CLONE_THREAD, let through below)
        "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
        "clone": (56, 220), "clone3": (435, 435),
        # network; io_uring opens sockets without the call `socket`
        "socket": (41, 198), "io_uring_setup": (425, 425),
        # other processes
        "kill": (62, 129), "tgkill": (234, 131), "tkill": (200, 130),
        "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
        "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "ptrace": (101, 117),
        "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
        "prctl": (157, 167),
        # the kernel's own house
        "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
        "unshare": (272, 97), "setns": (308, 268), "fsopen": (430, 430), "fsconfig": (431, 431),
        "fsmount": (432, 432), "move_mount": (429, 429), "open_tree": (428, 428),
        "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241),
        "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217),
        "request_key": (249, 218), "open_by_handle_at": (304, 265),
        # memory that the limit of the address space does not count
        "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
        "msgget": (68, 186), "semget": (64, 190),
        # owners, modes, times: Landlock leaves them open
        "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
        "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
        "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
        "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
        "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
        "utimensat": (280, 88),
    }.items()
}  # fmt: skip
CLONE_THREAD = 0x00010000

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER_AT, ARCH_AT, FIRST_ARGUMENT_AT = 0, 4, 16
SECCOMP_MODE_FILTER = 2


def machine() -> str:
    """`x86_64` or `aarch64`; OSError on any other."""
    name = os.uname().machine
    if name not in AUDIT_ARCH or struct.calcsize("P") != 8:
        raise OSError(errno.ENOSYS, f"no numbers of system calls for {name}")
    return name


def install() -> None:
    """Puts the filter on this process for good."""
    program = b"".join(struct.pack("=HBBI", *line) for line in rules(machine(), os.getpid()))
    lines = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(lines))
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    libc.call("prctl", libc.PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0)


def rules(name: str, pid: int) -> list[tuple[int, int, int, int]]:
    """The filter as (code, jump if true, jump if false, value) lines of classic BPF."""
    number = {call: of[name] for call, of in NUMBERS.items() if of[name] is not None}
    lines = [
        (LOAD, 0, 0, ARCH_AT), (JUMP_EQUAL, 1, 0, AUDIT_ARCH[name]), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT), (JUMP_AT_LEAST, 0, 1, X32_BIT), _refuse(errno.EPERM),
    ]  # fmt: skip
    lines += _only(number.pop("clone"), JUMP_SET, CLONE_THREAD)
    lines += _only(number.pop("kill"), JUMP_EQUAL, pid)
    lines += _only(number.pop("tgkill"), JUMP_EQUAL, pid)
    # The flags of clone3 lie behind a pointer, unseen; without it the C library takes clone.
    lines += [(JUMP_EQUAL, 0, 1, number.pop("clone3")), _refuse(errno.ENOSYS)]
    for value in number.values():
        lines += [(JUMP_EQUAL, 0, 1, value), _refuse(errno.EPERM)]
    return [*lines, (RETURN, 0, 0, ALLOW)]


def _only(number: int, test: int, value: int) -> list[tuple[int, int, int, int]]:
    """Lets a call through only where its first argument passes `test`."""
    return [
        (JUMP_EQUAL, 0, 4, number), (LOAD, 0, 0, FIRST_ARGUMENT_AT), (test, 0, 1, value),
        (RETURN, 0, 0, ALLOW), _refuse(errno.EPERM),
    ]  # fmt: skip


def _refuse(number: int) -> tuple[int, int, int, int]:
    return (RETURN, 0, 0, REFUSE | number)
