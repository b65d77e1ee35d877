"""Models to and from other programs: what `scripts.convert` runs.

nanochat's folders of every era and transformers' folders, read and written without torch, and GGUF
files, written. Reading goes from the folder down: `nanochat` (layout) -> `eras`, `names`,
`optim_files` (meaning) -> `torchfile` -> `pickles`, `stored_zip` (bytes).
"""

from nanochat_jax.config.convert import Compare, Export, Import, Merge, Push
from nanochat_jax.interop.compare import compare as compare
from nanochat_jax.interop.exports import export_model as export_model
from nanochat_jax.interop.imports import import_model as import_model
from nanochat_jax.interop.merge import merge as merge


def convert(command: Import | Export | Compare | Merge | Push) -> list[str]:
    """Runs one command and returns the lines to print; raises what its function raises."""
    if isinstance(command, Push):
        from nanochat_jax.interop.push import push  # the report's views come with it

        return push(command)
    if isinstance(command, Compare):
        return compare(command)
    if isinstance(command, Export):
        folder, lines = export_model(command)
        return [*lines, f"exported to {folder}"]
    if isinstance(command, Merge):
        (path, lines), done = merge(command), "written"
    else:
        (path, lines), done = import_model(command), "imported into"
    stage = path.parent.parent.name.removesuffix("_checkpoints").removeprefix("chat")
    talk = f"python -m scripts.chat_cli -i {stage} -g {path.parent.name}"
    return [*lines, f"{done} {path}", f"next: {talk}"]
