"""Whether this process is one of several of a run, by its flags or by what started it. Pure.

JAX finds the others itself under Slurm, Open MPI and Kubernetes; what stands here decides when it
is asked to. Variables alone do not say it: a program in an allocation, or in an interactive shell,
has most of them and is alone.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from nanochat_jax.config.program import Processes

EXAMPLE = "--coordinator node1:1234 --num-processes 2 --process-id 0"


class Place(NamedTuple):
    """How a process finds the others.

    `method` is JAX's name of the launcher that it asks; `deactivate`: nobody, the flags say all.
    `local` is the process's number among the `locals` of its machine; they share its GPUs.
    """

    method: str
    coordinator: str | None = None
    count: int | None = None
    index: int | None = None
    local: int = 0
    locals: int = 1


def find(asked: Processes, env: Mapping[str, str]) -> Place | None:
    """The place of this process among others; None: it is alone.

    Raises:
        ValueError: flags of which some are missing or out of range, or a launcher that does not
            say enough.
    """
    if asked != Processes():
        return _typed(asked)
    return _slurm(env) or _open_mpi(env) or _kubernetes(env)


def _typed(asked: Processes) -> Place | None:
    """What the flags say; `--num-processes 1` means alone, whatever started it."""
    where, count, index = asked.coordinator, asked.num_processes, asked.process_id
    if count == 1 and not where and index in (-1, 0):
        return None
    given = {
        "--coordinator": where != "",
        "--num-processes": count >= 0,
        "--process-id": index >= 0,
    }
    if not all(given.values()):
        got, missing = ([k for k in given if given[k] is wanted] for wanted in (True, False))
        raise ValueError(
            f"expected --coordinator, --num-processes and --process-id together, got "
            f"{', '.join(got) or 'numbers below 0'} without {', '.join(missing)}; type {EXAMPLE} "
            "(and --process-id 1 for the second one)"
        )
    if not re.fullmatch(r".+:\d{1,5}", where):
        raise ValueError(
            f"--coordinator is {where!r}; expected HOST:PORT, the address of process 0 and a free "
            "port there, such as node1:1234"
        )
    if not 0 <= index < count:
        raise ValueError(
            f"--process-id is {index} of {count} processes; expected 0 to {max(0, count - 1)}, "
            "another one for each"
        )
    return Place("deactivate", where, count, index)


def _slurm(env: Mapping[str, str]) -> Place | None:
    """One of several tasks of a step (`srun`). A batch script itself is none, and in an interactive
    shell (`srun --pty`) the other tasks have no program to run."""
    # Of the step: SLURM_NTASKS is also there in a shell within an allocation.
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) < 2 or "SLURM_PTY_PORT" in env:
        return None
    tasks = _tasks_per_node(env.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    here = tasks[min(int(env.get("SLURM_NODEID", 0)), len(tasks) - 1)]
    return Place("slurm", local=int(env.get("SLURM_LOCALID", 0)), locals=here)


def _tasks_per_node(text: str) -> list[int]:
    """Tasks on each node, for Slurm's `2(x3),1`."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, nodes in parts for _ in range(int(nodes or 1))]


def _open_mpi(env: Mapping[str, str]) -> Place | None:
    count = int(env.get("OMPI_COMM_WORLD_SIZE", 1))
    if count < 2:
        return None
    # JAX reads process 0's address where Open MPI 4 left it; Open MPI 5 leaves it nowhere.
    if "OMPI_MCA_orte_hnp_uri" not in env:
        raise ValueError(
            f"mpirun started {count} processes and does not say where the first one is (Open MPI 5 "
            "does not); type mpirun ... sh -c 'python -m scripts.train ... --coordinator "
            "node1:1234 --num-processes $OMPI_COMM_WORLD_SIZE --process-id $OMPI_COMM_WORLD_RANK'"
        )
    local, here = (int(env[f"OMPI_COMM_WORLD_LOCAL_{name}"]) for name in ("RANK", "SIZE"))
    return Place("ompi", local=local, locals=here)


def _kubernetes(env: Mapping[str, str]) -> Place | None:
    """A pod of an Indexed Job, alone or in a JobSet; JAX asks the cluster for the rest."""
    indexed = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(env)
    return Place("k8s") if indexed else None


def gpus_of(place: Place, gpus: int) -> list[int] | None:
    """The numbers of this process's GPUs, of so many that it sees; None: all of them.

    Left to itself JAX takes one GPU for each task of Slurm or Open MPI, also where there is one
    task on a machine with eight.
    """
    # Fewer than processes: each one sees its own alone already (`--gpus-per-task`).
    if place.locals < 2 or gpus < place.locals:
        return list(range(gpus)) or None
    each = gpus // place.locals
    return list(range(place.local * each, (place.local + 1) * each))
