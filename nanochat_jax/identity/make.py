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
from collections.abc import Sequence

from tqdm import tqdm

from nanochat_jax.config import paths
from nanochat_jax.config.data import MakeIdentity, WriteTemplates
from nanochat_jax.files import write_text
from nanochat_jax.identity import language as language_file
from nanochat_jax.identity import prompts, templates
from nanochat_jax.identity.conversation_file import ConversationFile
from nanochat_jax.identity.endpoint import Endpoint, read_conversation
from nanochat_jax.identity.endpoint_key import key_for
from nanochat_jax.identity.facts import Identity, read_identity
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
    """What a run did to the file: new conversations, and why answers were not taken."""

    file: ConversationFile
    new: int = 0
    duplicates: int = 0
    given_up: int = 0
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def total(self) -> int:
        return len(self.file)

    def add(self, index: int, messages: Messages | None, refused: Sequence[str] = ()) -> bool:
        """Writes a conversation, if there is one, and counts; False where nothing was gained."""
        self.refused.update(reason.partition(": ")[0] for reason in refused)  # without its example
        new = messages is not None and self.file.add(messages, index)
        self.new += new
        self.duplicates += messages is not None and not new
        self.given_up += messages is None
        return new

    def summary(self, count: int) -> str:
        """What there is to say of it, in one line."""
        if not (self.new or self.duplicates or self.refused or self.given_up):
            return "nothing to do"
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
        return "; ".join(parts)


def run(command: MakeIdentity) -> int:
    """`scripts.data identity`: makes the file, prints what was done, and returns the exit code."""
    words = pathlib.Path(command.templates).expanduser()
    language = language_file.read(words) if command.templates else language_file.ENGLISH
    who = read_identity(command.name, pathlib.Path(command.facts).expanduser(), language)
    path = pathlib.Path(command.out or paths.identity(paths.writable_base_dir())).expanduser()
    settings = {"seed": command.seed, "fresh": command.fresh}
    if command.endpoint:
        endpoint = Endpoint(
            command.endpoint, command.model, key_for(command.endpoint, command.key_variable),
            temperature=command.temperature, max_tokens=command.max_tokens,
        )  # fmt: skip
        workers = command.num_workers
        made = from_endpoint(path, who, command.count, endpoint, workers=workers, **settings)
    else:
        made = from_templates(path, who, command.count, **settings)
    print(made.summary(command.count))
    print(f"{path}: {made.total} conversations about {who.name} (facts: {len(who.facts)})")
    return 0


def write_templates(command: WriteTemplates) -> int:
    """`scripts.data templates`: writes the English file, to be translated."""
    path = pathlib.Path(command.out).expanduser()
    if path.exists():
        raise ValueError(f"{path} is there already; choose another --out, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, language_file.english())
    print(f"{path}: translate what stands in quotes, not the names in braces; then")
    print(f"  python -m scripts.data identity --templates {path} --name NAME --facts FILE")
    return 0


def from_templates(
    path: pathlib.Path, identity: Identity, count: int, *, seed: int = 0, fresh: bool = False
) -> Made:
    """Brings `path` to `count` conversations of ready phrases; raises as `ConversationFile`."""
    made = _begin(path, identity, "templates", count, seed, fresh)
    for index in range(REPEATS * count + 100):
        if made.total < count and index not in made.file.done:
            made.add(index, templates.conversation(identity, index, seed))
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
    made = _begin(path, identity, f"{endpoint.url} {endpoint.model}", count, seed, fresh)
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    running: set[concurrent.futures.Future] = set()
    indices = (i for i in itertools.count() if i not in made.file.done)
    failures = 0
    try:
        with tqdm(total=count, initial=made.total, desc="conversations", disable=None) as bar:
            while made.total < count and failures < HOPELESS:
                while len(running) < min(workers, count - made.total):
                    running.add(pool.submit(_ask, endpoint, identity, next(indices), seed))
                # Kept as they come, in any order: an interrupted run loses the running ones alone.
                for job in concurrent.futures.wait(running, return_when="FIRST_COMPLETED").done:
                    failures = 0 if made.add(*job.result()) else failures + 1
                    running.remove(job)
                bar.update(made.total - bar.n)
    finally:
        endpoint.close()
        pool.shutdown(cancel_futures=True)
        # What had come when another call failed is kept too.
        for job in running:
            if job.done() and not job.cancelled() and job.exception() is None:
                made.add(*job.result())
    if made.total < count:
        raise ValueError(_hopeless(endpoint, made))
    return made


def _begin(
    path: pathlib.Path, identity: Identity, writer: str, count: int, seed: int, fresh: bool
) -> Made:
    """The file, which knows by a digest of facts, writer and seed which indices are done."""
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1")
    facts, words = (fact.line for fact in identity.facts), identity.language.digest
    text = "\0".join([identity.name, *facts, writer + words, str(seed)])
    source = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return Made(ConversationFile(path, identity.name, source, fresh))


def _ask(
    endpoint: Endpoint, identity: Identity, index: int, seed: int
) -> tuple[int, Messages | None, list[str]]:
    """(index, conversation or None, why answers were refused), as `Made.add` takes them."""
    refused = []
    for attempt in range(ATTEMPTS):
        text, cut = endpoint.complete(prompts.request(identity, index, attempt, seed))
        try:
            return index, read_conversation(text, identity), refused
        except ValueError as error:
            log.debug("answer %d: %s", index, error)
            refused.append(CUT if cut else str(error))
    return index, None, refused


def _hopeless(endpoint: Endpoint, made: Made) -> str:
    if made.refused:
        reason, times = made.refused.most_common(1)[0]
        what = f"{made.refused.total()} answers were no conversation ({times} times: {reason})"
    else:
        what = f"{made.duplicates} answers were conversations that are there already"
    return (
        f"{endpoint.model} gave nothing new {HOPELESS} times in a row: {what}; {made.total} "
        f"conversations stay in {made.file.path}. Ask a larger model, or leave --endpoint out"
    )
