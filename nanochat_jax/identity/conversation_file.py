"""The file of conversations, written line by line, and beside it the notes on what made them.

A line is on disk before the next answer is waited for, so an interrupted run continues where it
was. The notes (`<name>.progress.jsonl`) say for whom the file is and which answers it has.
"""

import hashlib
import json
import logging
import os
import pathlib

from nanochat_jax.tasks.conversation import Messages, read_conversations

log = logging.getLogger(__name__)


class ConversationFile:
    """Conversations of one identity in `path`, and which indices of `source` are done.

    Args:
        source: what made them (facts, model, seed): indices of another source are not ours.
        fresh: whether to begin anew; a file that is there is kept beside, as `.old`.

    Raises:
        ValueError: the file is there and is of another name, of unknown origin, or damaged.
    """

    def __init__(self, path: pathlib.Path, name: str, source: str, fresh: bool = False):
        self.path, self.name, self.source = path, name, source
        self.notes = path.with_name(path.name.removesuffix(".jsonl") + ".progress.jsonl")
        if fresh and path.exists():
            # It may hold hours of a larger model's work, and the server may not answer now.
            path.replace(path.with_name(f"{path.name}.old"))
        self.done: set[int] = set()
        self._seen: set[bytes] = set()
        if path.exists() and path.stat().st_size:
            self._continue()
        else:
            self.notes.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, messages: Messages, index: int) -> bool:
        """Appends a conversation; False where the file has it already."""
        # The conversation before the note: killed between the two, a run makes this index again
        # and finds the conversation known; the other way round it would be missing for good.
        new = (digest := _digest(messages)) not in self._seen
        if new:
            self._seen.add(digest)
            _append(self.path, json.dumps(messages, ensure_ascii=False))
        _append(self.notes, json.dumps({"name": self.name, "source": self.source, "index": index}))
        self.done.add(index)
        return new

    def _continue(self) -> None:
        try:
            notes = [json.loads(line) for line in _whole_lines(self.notes)]
            names = {note["name"] for note in notes}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.notes} is damaged ({error}); --fresh starts over") from None
        # Conversations about two names in one file would teach neither.
        if names != {self.name}:
            whose = f"is about {', '.join(sorted(names))}" if names else "was not made here"
            raise ValueError(
                f"{self.path} is there and {whose}; begin it anew with --fresh, or write this "
                "elsewhere with --out FILE"
            )
        _whole_lines(self.path)
        self._seen = {_digest(messages) for messages in read_conversations(self.path)}
        self.done = {note["index"] for note in notes if note["source"] == self.source}
        log.info("%s: continuing after %d conversations", self.path, len(self))


def _append(path: pathlib.Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _whole_lines(path: pathlib.Path) -> list[bytes]:
    """The lines of a file; a last one without its end was cut off and is taken out."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        log.warning("%s: the last line was cut off and is dropped", path)
        os.truncate(path, len(whole))
    return whole.split(b"\n")[:-1]


def _digest(messages: Messages) -> bytes:
    """Equal for conversations that differ in capitals and blanks alone."""
    # Templates vary capitals at random; that alone makes no other conversation.
    text = "\0".join(f"{m['role']} {' '.join(str(m['content']).split())}" for m in messages)
    return hashlib.blake2b(text.casefold().encode("utf-8", "surrogatepass")).digest()
