"""Two checkpoints of any formats, opened to be compared."""

import pathlib

from nanochat_jax.checkpoint import find_checkpoint, load_tokenizer, store
from nanochat_jax.config.convert import Compare
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.paths import CHECKPOINTS, base_dir
from nanochat_jax.interop import compare as comparing
from nanochat_jax.interop import huggingface, nanochat


def compare(command: Compare) -> list[str]:
    """A table of differences: parameters, what each layer gives, logits."""
    a, b = open_checkpoint(command.a), open_checkpoint(command.b)
    ids = comparing.read_ids(command.ids) if command.ids else None
    return comparing.table(a, b, ids, command.prompt)


def open_checkpoint(name: str) -> comparing.Side:
    """A checkpoint in any format: a stage of ours, or a folder.

    Raises:
        FileNotFoundError: neither; the message says what was looked for.
    """
    path = pathlib.Path(name).expanduser()
    if name in CHECKPOINTS and not path.is_dir():
        return _own(find_checkpoint(name, None, None, base_dir()))
    if (path / "config.json").exists():
        found = huggingface.load(path)
        return comparing.Side(name, found.cfg, found.params, found.tokenizer)
    if path.is_dir() and (store.steps(path) or (path / "meta.json").exists()):
        return _own(store.find(path))
    files = nanochat.find(path)
    contents = nanochat.read(files, weights_only=True)
    tokenizer = nanochat.read_tokenizer(files.tokenizer)[0] if files.tokenizer else None
    return comparing.Side(name, contents.found.config, contents.params, tokenizer)


def _own(saved: store.Saved) -> comparing.Side:
    store.verify(saved)
    cfg = GPTConfig(**saved.meta["model_config"])
    root = saved.path.parents[2]
    return comparing.Side(str(saved.path), cfg, saved.params(), load_tokenizer(saved, root))
