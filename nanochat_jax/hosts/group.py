"""What the processes of a run say to each other from host to host: values and waiting.

Through JAX's coordination service, which process 0 keeps. Not by collectives, as
`jax.experimental.multihost_utils` does it: those hold the devices while they wait, which may be
for as long as a tokenizer trains, and are compiled anew for every size. All of this is called by
every process in the same order. Alone, everything answers at once.
"""

import contextlib
import itertools
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
# Longer than any work of one process that others wait for; who dies meanwhile is found by the
# watch, not by this.
WAIT_MS = 24 * 3600 * 1000
_number = itertools.count()


def client() -> Any:
    """JAX's client of the coordination service; None: this process is alone."""
    # Not public, and there is no public way to it; Orbax takes it from here as well.
    from jax._src import distributed

    return distributed.global_state.client


def count() -> int:
    """Processes of the run."""
    from jax._src import distributed

    # Not `jax.process_count`: that starts the devices, which are not chosen yet when this is asked.
    return distributed.global_state.num_processes if client() else 1


def index() -> int:
    """This process's number among them."""
    from jax._src import distributed

    return distributed.global_state.process_id if client() else 0


def chief() -> bool:
    """Whether this is process 0: the one that writes what is written once."""
    return index() == 0


def wait() -> None:
    """Returns when every process is here."""
    if count() > 1:
        client().wait_at_barrier(f"nanochat/here/{next(_number)}", WAIT_MS)


def first(make: Callable[[], T]) -> T:
    """What `make` returns in process 0, which alone calls it. An error there ends the others."""
    if count() == 1:
        return make()
    key = f"nanochat/first/{next(_number)}"
    if chief():
        value = make()
        client().key_value_set_bytes(key, pickle.dumps(value))
        return value
    return pickle.loads(client().blocking_key_value_get_bytes(key, WAIT_MS))


def gathered(value: T) -> list[T]:
    """The values of all processes, in their order."""
    if count() == 1:
        return [value]
    key = f"nanochat/all/{next(_number)}"
    client().key_value_set_bytes(f"{key}/{index()}", pickle.dumps(value))
    found = [
        pickle.loads(client().blocking_key_value_get_bytes(f"{key}/{i}", WAIT_MS))
        for i in range(count())
    ]
    wait()
    if chief():
        client().key_value_delete(key)  # else process 0 keeps all rollouts of a run
    return found


def divided(
    things: Sequence[T], work: Callable[[Sequence[T]], Iterable[R]], parts: int = 1
) -> list[R]:
    """What `work` makes of all things, of which each process does its part: of thing after thing,
    each of its `parts` (its devices) gets the next, then those of the next process."""
    if count() == 1:
        return list(work(things))
    everyone = range(len(things))
    mine = [things[i] for i in everyone if i // parts % count() == index()]
    return list(itertools.chain.from_iterable(gathered(list(work(mine)))))


@contextlib.contextmanager
def chief_first() -> Iterator[None]:
    """Process 0 runs the block before the others do: it makes the files that they then find."""
    if not chief():
        wait()
    yield
    if chief():
        wait()


def log_as_one_of_several() -> None:
    """Process 0 speaks for all; the others say what is wrong, and who they are."""
    if chief():
        return
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        handler.setFormatter(logging.Formatter(f"process {index()}: %(message)s"))


def local(tree: Any) -> Any:
    """Arrays that lie whole on every device, as they lie on this process's first one."""
    import jax

    whole = lambda x: x if x.is_fully_addressable else x.addressable_data(0)
    return jax.tree.map(whole, tree)
