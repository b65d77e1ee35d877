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
from collections.abc import Callable, Mapping

from tqdm import tqdm

from nanochat_jax.identity import prompts, templates
from nanochat_jax.identity.conversation_file import ConversationFile
from nanochat_jax.identity.endpoint import Endpoint, read_conversation
from nanochat_jax.identity.facts import Identity
from nanochat_jax.tasks.conversation import Messages

log = logging.getLogger(__name__)

ATTEMPTS = 3  # at one index, when the answer is no conversation
# Indices in a row without a conversation: a model too small for the task never gets it right, and
# every answer of it costs time or money.
HOPELESS = 12
CUT = "cut off at the limit of tokens (raise --max-tokens)"
# Templates: tries per conversation wanted. With few facts most draws are known after a while; this
# many leave a thousand conversations reachable from one fact.
REPEATS = 4


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
            parts.append(f"{count} wanted, but more facts are needed for more that differ")
        return "; ".join(parts) if self != Made(self.total) else "nothing to do"


def from_templates(
    path: pathlib.Path, identity: Identity, count: int, *, seed: int = 0, fresh: bool = False
) -> Made:
    """Brings `path` to `count` conversations of ready phrases.

    Raises:
        ValueError: the file is another identity's (see `ConversationFile`), or `count` is not
            positive.
    """
    file, made = _open(path, identity, "templates", count, seed, fresh), Made()
    for index in range(REPEATS * count + 100):
        if len(file) >= count:
            break
        if index not in file.done:
            new = file.add(templates.conversation(identity, index, seed), index)
            made.new += new
            made.duplicates += not new
    made.total = len(file)
    return made


def from_endpoint(
    path: pathlib.Path, identity: Identity, count: int, endpoint: Endpoint, *,
    workers: int = 4, seed: int = 0, fresh: bool = False,
) -> Made:  # fmt: skip
    """Brings `path` to `count` conversations written by a model, `workers` requests at a time.

    Each is on disk when it comes. Called again, it continues with the indices that are not done.

    Raises:
        ValueError: as `from_templates` and `Endpoint`; or the model writes no conversations. What
            came until then stays.
    """
    if workers < 1:
        raise ValueError(f"num_workers is {workers}; expected at least 1")
    writer = f"{endpoint.url} {endpoint.model}"
    file, made = _open(path, identity, writer, count, seed, fresh), Made()
    running: dict[concurrent.futures.Future, int] = {}
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    submit = lambda index: pool.submit(_ask, endpoint, identity, index, seed)
    try:
        _fill(file, made, count, workers, submit, running)
    finally:
        endpoint.close()
        pool.shutdown(cancel_futures=True)
        _keep_rest(file, made, running)
    made.total = len(file)
    if len(file) < count:
        raise ValueError(_hopeless(endpoint, made, file))
    return made


def _open(
    path: pathlib.Path, identity: Identity, writer: str, count: int, seed: int, fresh: bool
) -> ConversationFile:
    """The file, which knows by a digest of facts, writer and seed which indices are done."""
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1")
    text = "\0".join([identity.name, *(fact.line for fact in identity.facts), writer, str(seed)])
    source = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return ConversationFile(path, identity.name, source, fresh)


def _fill(
    file: ConversationFile, made: Made, count: int, workers: int,
    submit: Callable[[int], concurrent.futures.Future],
    running: dict[concurrent.futures.Future, int],
) -> None:  # fmt: skip
    """Keeps `workers` requests running until the file is full or the model is hopeless.

    `running`, request -> index, is the caller's: it holds what runs when this ends by an error.
    """
    indices = (i for i in itertools.count() if i not in file.done)
    failures = 0
    with tqdm(total=count, initial=len(file), desc="conversations", disable=None) as bar:
        while len(file) < count and failures < HOPELESS:
            while len(running) < min(workers, count - len(file)):
                index = next(indices)
                running[submit(index)] = index
            # Kept as they come, in any order: an interrupted run loses the running answers alone.
            concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
            for job in [job for job in running if job.done()]:
                gained = _keep(file, made, running[job], job.result())
                failures = 0 if gained else failures + 1
                del running[job]
            bar.update(len(file) - bar.n)


def _ask(
    endpoint: Endpoint, identity: Identity, index: int, seed: int
) -> tuple[Messages | None, list[str]]:
    """(conversation or None, why answers were refused)."""
    refused = []
    for attempt in range(ATTEMPTS):
        text, cut = endpoint.complete(prompts.request(identity, index, attempt, seed))
        try:
            return read_conversation(text, identity), refused
        except ValueError as error:
            log.debug("answer %d: %s", index, error)
            refused.append(CUT if cut else str(error))
    return None, refused


def _keep(
    file: ConversationFile, made: Made, index: int, answer: tuple[Messages | None, list[str]]
) -> bool:
    """Writes a conversation and counts; False where nothing was gained."""
    messages, refused = answer
    made.refused.update(reason.partition(": ")[0] for reason in refused)  # without its example
    if messages is None:
        made.given_up += 1
        return False
    new = file.add(messages, index)
    made.new += new
    made.duplicates += not new
    return new


def _keep_rest(
    file: ConversationFile, made: Made, running: Mapping[concurrent.futures.Future, int]
) -> None:
    """What had come when another call failed is kept too."""
    for job, index in running.items():
        if job.done() and not job.cancelled() and job.exception() is None:
            _keep(file, made, index, job.result())


def _hopeless(endpoint: Endpoint, made: Made, file: ConversationFile) -> str:
    if not made.refused:
        what = f"{made.duplicates} answers were conversations that are there already"
    else:
        reason, times = made.refused.most_common(1)[0]
        what = f"{made.refused.total()} answers were no conversation ({times} times: {reason})"
    return (
        f"{endpoint.model} gave nothing new {HOPELESS} times in a row: {what}; {len(file)} "
        f"conversations stay in {file.path}. Ask a larger model, or leave --endpoint out"
    )
