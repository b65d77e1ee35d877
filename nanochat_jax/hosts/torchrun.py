"""torchrun starts a process for each GPU; here one has all GPUs of a machine."""

import os
import sys


def alone() -> None:
    """Under torchrun: the first process of the machine goes on, with all its devices.

    Raises:
        SystemExit: in the others (0), or where torchrun spans machines (2).
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    if os.environ.get("LOCAL_RANK", "0") != "0":
        raise SystemExit(0)
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        print("error: torchrun over several machines is not understood; start one process on each "
              "with --coordinator, --num-processes and --process-id (docs/several-machines.md)",
              file=sys.stderr)  # fmt: skip
        raise SystemExit(2)
    print("torchrun is not needed: one process has all devices of this machine", file=sys.stderr)
    # OMP_NUM_THREADS it sets to 1 for as many processes as there are GPUs.
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS"):
        os.environ.pop(name, None)
