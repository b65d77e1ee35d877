"""The few calls of the C library that Python 3.11 has no function for. Linux only."""

import ctypes
import os

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *args: int | bytes | ctypes.Array | ctypes.Structure | None) -> int:
    """The result of a function of the C library; OSError with its name where it fails."""
    return _checked(name, _libc[name](*map(_argument, args)))


def syscall(name: str, number: int, *args: int | bytes | None) -> int:
    """The result of a system call that the C library may have no function for."""
    return _checked(name, _libc.syscall(ctypes.c_long(number), *map(_argument, args)))


def prctl(option: int, value: int) -> None:
    call("prctl", option, value, 0, 0, 0)


def drop_capabilities() -> None:
    """Gives up every privilege that is not tied to the user's number."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    call("capset", ctypes.byref(header), (ctypes.c_uint32 * 6)())


def _argument(value):
    return ctypes.c_ulong(value & 2**64 - 1) if isinstance(value, int) else value


def _checked(name: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
