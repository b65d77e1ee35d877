"""Makes the file of identity conversations, from templates or by asking a larger model.

Source: what nanochat `dev/gen_synthetic_data.py` is for.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import logging
import pathlib
from collections.abc import Mapping

from tqdm import tqdm

from nanochat_jax.identity import mix, templates
from nanochat_jax.identity.endpoint import Endpoint, read_conversation
from nanochat_jax.identity.facts import Identity
from nanochat_jax.identity.store import Store
from nanochat_jax.tasks.conversation import Messages

log = logging.getLogger(__name__)

ATTEMPTS = 3  # at one index, when the answer is no conversation
HOPELESS = 12  # indices in a row without a conversation: the model cannot do it
CUT = "cut off at the limit of tokens (raise --max-tokens)"
REPEATS = 4  # templates: tries per conversation wanted, before the facts are used up


@dataclasses.dataclass
class Made:
    """What a run did: conversations in the file, new ones, and why answers were not taken."""

    total: int = 0
    new: int = 0
    duplicates: int = 0
    given_up: int = 0
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def summary(self, count: int) -> str:
        """What there is to say of it, in one line."""
        parts = [f"{self.new} new"]
        if self.duplicates:
            parts.append(f"{self.duplicates} that were there already left out")
        if self.refused:
            reasons = ", ".join(f"{n} x {reason}" for reason, n in self.refused.most_common())
            parts.append(f"{self.refused.total()} answers refused ({reasons})")
        if self.given_up:
            parts.append(f"{self.given_up} given up after {ATTEMPTS} answers")
        if self.total < count:
            parts.append(f"{count} asked for, but more facts are needed for more that differ")
        return "; ".join(parts) if self != Made(self.total) else "nothing to do"


def from_templates(
    path: pathlib.Path, identity: Identity, count: int, *, seed: int = 0, fresh: bool = False
) -> Made:
    """Brings `path` to `count` conversations of ready phrases.

    Raises:
        ValueError: the file is somebody else's (see `Store`), or `count` is not positive.
    """
    store = Store(path, identity.name, source(identity, "templates", seed), _checked(count, fresh))
    made = Made()
    for index in range(REPEATS * count + 100):
        if len(store) >= count:
            break
        if index in store.done:
            continue
        if store.add(templates.conversation(identity, index, seed), index):
            made.new += 1
        else:
            made.duplicates += 1
    made.total = len(store)
    return made


def from_endpoint(
    path: pathlib.Path, identity: Identity, count: int, endpoint: Endpoint, *,
    workers: int = 4, seed: int = 0, fresh: bool = False,
) -> Made:  # fmt: skip
    """Brings `path` to `count` conversations written by a model, `workers` asked at a time.

    Each is on disk when it comes. A call again goes on with the indices that are not done.

    Raises:
        ValueError: as `from_templates` and `Endpoint`; or the model writes no conversations. What
            came until then stays.
    """
    if workers < 1:
        raise ValueError(f"num_workers is {workers}; expected at least 1")
    origin = source(identity, f"{endpoint.url} {endpoint.model}", seed)
    store, made = Store(path, identity.name, origin, _checked(count, fresh)), Made()
    indices = (i for i in itertools.count() if i not in store.done)
    running: dict[concurrent.futures.Future, int] = {}
    failures = 0
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    bar = tqdm(total=count, initial=len(store), desc="conversations", disable=None)
    try:
        while len(store) < count and failures < HOPELESS:
            while len(running) < min(workers, count - len(store)):
                index = next(indices)
                running[pool.submit(_ask, endpoint, identity, index, seed)] = index
            concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
            for job in [job for job in running if job.done()]:
                gained = _keep(store, made, running[job], job.result())
                failures = 0 if gained else failures + 1
                del running[job]
            bar.update(len(store) - bar.n)
    finally:
        endpoint.close()
        pool.shutdown(cancel_futures=True)
        _keep_rest(store, made, running)
        bar.close()
    made.total = len(store)
    if len(store) < count:
        raise ValueError(_hopeless(endpoint, made, store))
    return made


def source(identity: Identity, writer: str, seed: int) -> str:
    """A short name of what makes the conversations: facts, writer and seed."""
    text = "\0".join([identity.name, *(fact.line for fact in identity.facts), writer, str(seed)])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _ask(
    endpoint: Endpoint, identity: Identity, index: int, seed: int
) -> tuple[Messages | None, list[str]]:
    """(conversation or None, why answers were refused)."""
    refused = []
    for attempt in range(ATTEMPTS):
        text, cut = endpoint.complete(mix.request(identity, index, attempt, seed))
        try:
            return read_conversation(text, identity), refused
        except ValueError as error:
            log.debug("answer %d: %s", index, error)
            refused.append(CUT if cut else str(error))
    return None, refused


def _keep(store: Store, made: Made, index: int, answer: tuple[Messages | None, list[str]]) -> bool:
    """Writes a conversation and counts; False where nothing was gained."""
    messages, refused = answer
    made.refused.update(reason.partition(": ")[0] for reason in refused)  # without its example
    if messages is None:
        made.given_up += 1
        return False
    new = store.add(messages, index)
    made.new += new
    made.duplicates += not new
    return new


def _keep_rest(store: Store, made: Made, running: Mapping[concurrent.futures.Future, int]) -> None:
    """What had come when another call failed is kept too."""
    for job, index in running.items():
        if job.done() and not job.cancelled() and job.exception() is None:
            _keep(store, made, index, job.result())


def _checked(count: int, fresh: bool) -> bool:
    """`fresh`; raises ValueError for a `count` that is none."""
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1")
    return fresh


def _hopeless(endpoint: Endpoint, made: Made, store: Store) -> str:
    if not made.refused:
        what = f"{made.duplicates} answers were conversations that are there already"
    else:
        reason, times = made.refused.most_common(1)[0]
        what = f"{made.refused.total()} answers were no conversation ({times} times: {reason})"
    return (
        f"{endpoint.model} gave nothing new {HOPELESS} times in a row: {what}; {len(store)} "
        f"conversations stay in {store.path}. Ask a larger model, or leave --endpoint out"
    )
