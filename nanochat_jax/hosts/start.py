"""Joining the other processes of a run, before JAX first looks at its devices."""

import glob
import importlib.util
import logging
import os
import pathlib
import secrets
import socket
import time

from nanochat_jax import gpu_process
from nanochat_jax.config.errors import start_logging
from nanochat_jax.config.program import Processes
from nanochat_jax.hosts import launchers
from nanochat_jax.hosts.launchers import Place

log = logging.getLogger(__name__)

START_S = 300  # until all processes must have come: containers start minutes apart
# JAX's own watch ends a process without a word of ours; it is for when ours does not (watch.py). It
# asks every half of this, so it finds a death after half of it or more: later than ours does.
HEARTBEAT_S, SHUTDOWN_S = 75, 60
SEEN_S = 15.0  # for a new file to be seen on another machine: NFS keeps names for seconds


def join(asked: Processes, root: pathlib.Path) -> int:
    """Joins the run's other processes, if there are any; returns how many there are.

    Raises:
        ValueError: flags that say too little, processes that did not come, or a base directory
            that they do not share.
    """
    place = launchers.find(asked, os.environ)
    if place is None:
        return 1
    start_logging()
    try:
        _initialize(place)
    except RuntimeError as error:
        raise ValueError(
            f"the processes of this run did not find each other within {START_S} s (this one is on "
            f"{socket.gethostname()}): {error}; start all of them, each with its own number, where "
            "each can reach the address of process 0"
        ) from error
    from nanochat_jax.hosts import group, watch

    if group.count() == 1:
        return 1
    group.log_as_one_of_several()
    watch.start(group.client(), group.index(), group.count())
    log.info("process %d of %d on %s", group.index(), group.count(), socket.gethostname())
    _check_shared(root)
    return group.count()


def _initialize(place: Place) -> None:
    import jax

    if place.method == "k8s" and importlib.util.find_spec("kubernetes") is None:
        raise ValueError(
            "this is a pod of an Indexed Job, and JAX can ask the cluster for the others only with "
            "the package kubernetes: pip install kubernetes, or type --coordinator HOST:PORT "
            "--num-processes N --process-id $JOB_COMPLETION_INDEX; a run of its own in each pod: "
            "--num-processes 1"
        )
    files = len(glob.glob("/dev/nvidia[0-9]*"))
    visible = gpu_process.visible_gpus(os.environ, files)
    jax.distributed.initialize(
        place.coordinator, place.count, place.index,
        local_device_ids=None if place.coordinator else launchers.gpus_of(place, visible),
        cluster_detection_method=place.method, initialization_timeout=START_S,
        heartbeat_timeout_seconds=HEARTBEAT_S, shutdown_timeout_seconds=SHUTDOWN_S,
    )  # fmt: skip


def _check_shared(root: pathlib.Path) -> None:
    """Raises ValueError, in every process, unless all see what process 0 writes in `root`.

    Each would else go on with files of its own: checkpoints of which every machine has a part.
    """
    from nanochat_jax.hosts import group

    name = group.first(lambda: f".together-{secrets.token_hex(4)}")
    if group.chief():
        root.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    group.wait()
    blind = [
        host
        for host, seen in group.gathered((socket.gethostname(), _seen(root / name)))
        if not seen
    ]
    if group.chief():
        (root / name).unlink()
    if blind:
        raise ValueError(
            f"expected one base directory for all processes, got one of their own for those on "
            f"{', '.join(sorted(set(blind)))}: {root} there is not that of process 0; put "
            "$NANOCHAT_BASE_DIR on a file system that all machines share (NFS, Lustre, Filestore)"
        )


def _seen(path: pathlib.Path) -> bool:
    end = time.monotonic() + SEEN_S
    while time.monotonic() < end:
        # Listed, not only asked for: that makes NFS look again.
        if path.parent.is_dir() and path.name in os.listdir(path.parent):
            return True
        time.sleep(0.2)
    return False
