"""The commands of `scripts.data` on shards, texts and leftovers: each prints what it did."""

import pathlib

from nanochat_jax import devices, leftovers
from nanochat_jax.config.data import AddTexts, Clean, Download, ListShards, VerifyShards
from nanochat_jax.config.paths import (
    base_data,
    base_dir,
    conversations,
    hidden_shards,
    writable_base_dir,
)
from nanochat_jax.data import download, importer, manifest, shards, trial
from nanochat_jax.tasks.conversation import read_conversations


def run(command: Download | AddTexts | ListShards | VerifyShards | Clean) -> int:
    """Runs one command and returns the exit code."""
    if isinstance(command, Download):
        return _download(command)
    if isinstance(command, AddTexts):
        return _add(command)
    if isinstance(command, Clean):
        return _clean(command)
    return _list() if isinstance(command, ListShards) else _verify(command)


def _download(command: Download) -> int:
    count = download.shards(
        writable_base_dir(), command.num_files, recipe=command.recipe, workers=command.num_workers,
        base_url=command.base_url or None, mix=command.mix,
    )  # fmt: skip
    folder = base_data(base_dir())
    print(f"{count} shards in {folder}; next: python -m scripts.train --stage tokenizer")
    return 0


def _add(command: AddTexts) -> int:
    if not command.paths:
        raise ValueError("name files or folders: python -m scripts.data add PATH...")
    kind = "conversations" if command.conversations else "documents"
    add = importer.add_conversations if command.conversations else importer.add_documents
    done = add(writable_base_dir(), [pathlib.Path(p).expanduser() for p in command.paths])
    print(
        f"{done.files} file(s): {done.train} {kind} to train on, {done.val} to validate, "
        f"{done.duplicates} known before and dropped; in {base_dir()}"
    )
    if done.left_out:
        print(f"left out: {'; '.join(done.left_out)}")
    if not command.conversations:
        print(*trial.told(base_dir(), devices.machine_kind()), sep="\n")
    return 0


def _list() -> int:
    chats, _ = _say_conversations()
    if (found := _texts_beside(chats)) is None:
        return 0
    print(f"{found.source}:")
    _say_hidden(found)
    for path in (*found.train, found.val):
        split, megabytes = "val" if path == found.val else "train", path.stat().st_size / 1e6
        rows = shards.count_documents(path)
        empty = "" if rows else "  EMPTY"
        print(f"  {path.name}  {split:5}  {rows:>9,} documents  {megabytes:8.1f} MB{empty}")
    _say_left_over()
    return 0


def _say_conversations() -> tuple[int, int]:
    """A line for each file of the user's own chats; (such files, those of them that are damaged)"""
    files = [(split, conversations(base_dir(), split)) for split in ("train", "val")]
    files, damaged = [(split, path) for split, path in files if path.exists()], 0
    for split, path in files:
        try:
            told = f"{sum(1 for _ in read_conversations(path)):>9,} conversations"
        except ValueError as error:
            told, damaged = f"DAMAGED: {error}", damaged + 1
        print(f"  {path.parent.name}/{path.name}  {split:5}  {told}")
    return len(files), damaged


def _texts_beside(chats: int) -> shards.Shards | None:
    """The shards; None where there are `chats` alone, which mid and sft train on."""
    try:
        return shards.listed(base_dir())
    except FileNotFoundError as error:
        if not chats:
            raise
        print(f"  {error}")
        return None


def _say_hidden(found: shards.Shards) -> None:
    for path in hidden_shards(found.val.parent):
        print(f"  {path.name}  left out: a hidden file, as a system leaves beside others")


def _say_left_over() -> None:
    if left := leftovers.find(base_dir()):
        total = leftovers.size_text(sum(each.size for each in left))
        print(f"left over on disk: {len(left)}, {total}; python -m scripts.data clean shows them")


def _clean(command: Clean) -> int:
    others = [pathlib.Path(p).expanduser() for p in command.paths]
    freed = kept = 0
    for left in leftovers.find(base_dir(), others):
        why = "  (stays: written to within the last hour)" * left.may_be_at_work
        if command.yes and not why:
            leftovers.remove(left)
        freed, kept = (freed, kept + left.size) if why else (freed + left.size, kept)
        days = f"{left.age_s / 86400:5.1f} days"
        print(f"  {leftovers.size_text(left.size):>9}  {days}  {left.kind}  {left.path}{why}")
    total, rest = leftovers.size_text(freed), leftovers.size_text(kept)
    done = "removed" if command.yes else "to remove (nothing was; type --yes)"
    print(f"{total} {done}" + (f"; {rest} stay" if kept else ""))
    print("earlier runs that were moved aside: python -m scripts.checkpoints list")
    return 0


def _verify(command: VerifyShards) -> int:
    chats, damaged = _say_conversations()
    if (found := _texts_beside(chats)) is None:
        return 1 if damaged else 0
    files, folder = (*found.train, found.val), found.val.parent
    entries = manifest.read(folder)
    _say_hidden(found)
    for path in files:
        # One damaged shard says nothing of the others: all are read, and each is named.
        try:
            known = _check_digest(path, entries.get(path.name), command.write)
            count = sum(map(len, shards.iter_documents([path])))
            damaged += not count
            what = f"{count:,} documents, all readable" if count else "EMPTY: it holds no document"
            print(f"  {path.name}  {what}; {known}")
        except ValueError as error:
            damaged += 1
            print(f"  {path.name}  DAMAGED: {error}")
    missing = sorted(entries.keys() - {path.name for path in files})
    for name in missing:
        print(f"  {name}  MISSING: get it again, or delete {folder / manifest.NAME}")
    return 1 if damaged or missing else 0


def _check_digest(path: pathlib.Path, entry: manifest.Entry | None, write: bool) -> str:
    """What is to be said of a shard's digest; raises ValueError where it is another one."""
    if entry is None and not write:
        return "no digest recorded (verify --write adds it)"
    digest = manifest.digests([path])
    if entry is None:
        manifest.record(path.parent, digest)
        return "digest recorded"
    manifest.check(path, entry, digest[path.name])
    return "digest as recorded"
