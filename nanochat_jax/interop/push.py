"""`convert push`: a model goes to the Hugging Face hub, after somebody has read what goes.

All is written into a folder first: `model/`, with `--space` `space/`, and beside them what they
were made of. With `--yes` that folder is sent as it stands, so what was read, and perhaps edited,
is what arrives.
"""

import dataclasses
import hashlib
import json
import pathlib
import shlex
import shutil
from typing import Any

from nanochat_jax import files
from nanochat_jax.checkpoint import find_checkpoint, store
from nanochat_jax.config import paths
from nanochat_jax.config.convert import Export, Push
from nanochat_jax.interop import model_card, space, upload
from nanochat_jax.interop.exports import export_model

MADE_OF = "made_of.json"
# Fields that change nothing in the files.
OF_THE_CALL = ("yes", "private", "dir")


def push(command: Push) -> list[str]:
    """Writes what is to be sent, sends it with `--yes`; returns what to say.

    Raises:
        FileNotFoundError: no such checkpoint; the message names the command that makes it.
        ValueError: a format cannot express the model, the folder holds another push, or the hub
            refuses.
        ConnectionError: the hub was not reached.
    """
    _check(command)
    folder, told = written(command)
    parcels = [upload.Parcel(folder / "model", command.repo, "model")]
    if command.space:
        parcels.append(upload.Parcel(folder / "space", command.repo, "space"))
    if command.yes:
        message = f"{model_card.name_of(command.repo)} by nanochat-jax"
        return [*told, *upload.send(parcels, message, private=command.private)]
    card = (folder / "model" / "README.md").read_text("utf-8")
    return [*told, card, *map(listed, parcels), f"written into {folder}; nothing was sent. To send "
            f"it as it stands there: {typed(dataclasses.replace(command, yes=True))}"]  # fmt: skip


def _check(command: Push) -> None:
    upload.check_repo(command.repo)
    if not command.format or len({*command.format}) < len(command.format):
        raise ValueError(f"--format is {' '.join(command.format) or 'empty'}; expected one or "
                         "several formats, each once")  # fmt: skip
    if command.space:
        space.refuse(command)


def written(command: Push) -> tuple[pathlib.Path, list[str]]:
    """The folder of a push and what to know of it; what is there already is left as it is."""
    root = paths.base_dir()
    beside = paths.pushes(root) / command.repo.replace("/", "--")
    folder = pathlib.Path(command.dir).expanduser() if command.dir else beside
    step = command.step if command.step >= 0 else None
    saved = find_checkpoint(command.source, command.model_tag or None, step, root)
    made_of = origin(command, saved)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if _read(folder / MADE_OF) != made_of:
            raise ValueError(f"{folder} holds something else than this push; type `rm -r "
                             f"{shlex.quote(str(folder))}`, or name another --dir")  # fmt: skip
        return folder, [f"{folder} is there and goes as it stands; remove it to write it anew"]
    with files.whole_folder(folder) as part:
        told = _write_model(part / "model", command, saved, root)
        if command.space:
            space.write(part / "space", command, saved.cfg)
        files.write_json(part / MADE_OF, made_of)
    return folder, told


def origin(command: Push, saved: store.Saved) -> dict[str, Any]:
    """What the files follow from, as JSON has it: the command and the checkpoint's own digests."""
    digests = (saved.path / store.MANIFEST).read_bytes()
    asked = {k: v for k, v in dataclasses.asdict(command).items() if k not in OF_THE_CALL}
    made_of = asked | {"step": saved.step, "checkpoint": hashlib.sha256(digests).hexdigest()}
    return json.loads(json.dumps(made_of))


def listed(parcel: upload.Parcel) -> str:
    """The files of a folder with their sizes."""
    sizes = {name: (parcel.folder / name).stat().st_size for name in parcel.files}
    lines = [f"  {size:>14,} bytes  {name}" for name, size in sizes.items()]
    head = (
        f"the {parcel.kind} {parcel.repo}: {len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB"
    )
    return "\n".join([head, *lines])


def typed(command: Push) -> str:
    """The command line of a push."""
    words = ["python", "-m", "scripts.convert", "push"]
    for field in dataclasses.fields(command):
        value, flag = getattr(command, field.name), "--" + field.name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value != field.default:
            words += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)


def _write_model(
    folder: pathlib.Path, command: Push, saved: store.Saved, root: pathlib.Path
) -> list[str]:
    """Writes every format and the card; returns what the exports had to say."""
    folder.mkdir()
    layout, told = model_card.Layout(command.format, model_card.gguf_name(command)), []
    for format in command.format:
        place = folder / format
        _, lines = export_model(_export(command, format, saved, place))
        # The last line says what to type with a folder here.
        told += [f"{format}: {line}" for line in lines[:-1]]
        if not layout.folder(format):
            _lift(place)
    model_card.write(folder / "README.md", command, saved, root)
    return told


def _export(command: Push, format: Any, saved: store.Saved, place: pathlib.Path) -> Export:
    named = model_card.name_of(command.repo) if format in ("gguf", "nanochat") else ""
    return Export(
        dir=str(place), format=format, quant=command.quant, source=command.source,
        model_tag=saved.path.parent.name, as_name=named, step=saved.step, optimizer=False,
        lossy=command.lossy,
    )  # fmt: skip


def _lift(folder: pathlib.Path) -> None:
    """Moves what is in a folder one up."""
    for path in list(folder.iterdir()):
        shutil.move(path, folder.parent / path.name)
    folder.rmdir()


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
