"""Bumpers inside the interpreter: the functions that the original takes away from a program.

They keep scores comparable, since a program that calls one fails there and here; they are not
what protects the machine. Source: nanochat:nanochat/execution.py.
"""

import builtins
import os
import shutil
import subprocess
import sys

GONE = (
    (builtins, "exit quit help"),
    (
        os,
        "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename "
        "renames truncate replace unlink fchmod fchown chmod chown chroot lchflags lchmod lchown "
        "getcwd chdir",
    ),
    (shutil, "rmtree move chown"),
    (subprocess, "Popen"),
)
# The first five as the original; the others reach past the functions above.
UNIMPORTABLE = "ipdb joblib resource psutil tkinter ctypes _ctypes _posixsubprocess".split()


def install() -> None:
    """Sets the functions to None and forbids the modules, in this process."""
    for module, names in GONE:
        for name in names.split():
            setattr(module, name, None)
    for name in UNIMPORTABLE:
        sys.modules[name] = None  # type: ignore[assignment]
