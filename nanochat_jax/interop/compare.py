"""Two models side by side: their parameters, what every layer gives, their logits."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from nanochat_jax.checkpoint import find_checkpoint, load_tokenizer, store
from nanochat_jax.config import paths
from nanochat_jax.config.convert import Compare
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.interop import huggingface, nanochat
from nanochat_jax.models.gpt import GPT
from nanochat_jax.texts import read_text
from nanochat_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two; `tokenizer` may be None where its files have none."""

    name: str
    cfg: GPTConfig
    params: Any
    tokenizer: Tokenizer | None


def compare(command: Compare) -> list[str]:
    """Lines of the comparison: parameters, what each layer gives, logits.

    FileNotFoundError or ValueError: no such checkpoint or file of ids, no tokenizer for the prompt,
    or ids outside the vocabulary.
    """
    a, b = _open(command.a), _open(command.b)
    lines = [f"a: {a.name}", f"b: {b.name}", *_config_lines(a.cfg, b.cfg)]
    one, two, told = a.tokenizer, b.tokenizer, ": one side has none"
    if one and two:
        told = ": equal" if one.hash == two.hash else f" differs: {one} | {two}"
    lines += [f"tokenizer{told}", *_parameter_lines(a.params, b.params)]
    if command.ids:
        ids = _read_ids(command.ids)
    elif tokenizer := one or two:
        ids = [tokenizer.get_bos_token_id(), *tokenizer.encode(command.prompt)]
    else:
        raise ValueError("neither side has a tokenizer for the prompt; give --ids FILE")
    most = min(a.cfg.vocab_size, b.cfg.vocab_size)
    if not ids or max(ids) >= most or min(ids) < 0:
        raise ValueError(f"expected ids of 0 to {most - 1}, got {ids[:8]}")
    return [*lines, *_layer_lines(a, b, ids)]


def _open(name: str) -> Side:
    """A checkpoint in any format: a stage of ours, or a folder."""
    path = pathlib.Path(name).expanduser()
    own = None
    if name in paths.CHECKPOINTS and not path.is_dir():
        own = find_checkpoint(name, None, None, paths.base_dir())
    elif path.is_dir() and (store.steps(path) or (path / "meta.json").exists()):
        own = store.find(path)
    if own:
        store.verify(own)
        tokenizer = load_tokenizer(own, own.path.parents[2])
        return Side(str(own.path), own.cfg, own.params(), tokenizer)
    if (path / "config.json").exists():
        model = huggingface.load(path)
        return Side(name, model.cfg, model.params, model.tokenizer)
    files = nanochat.find(path)
    contents = nanochat.read(files, weights_only=True)
    tokenizer = nanochat.read_tokenizer(files.tokenizer)[0] if files.tokenizer else None
    return Side(name, contents.era.config, contents.params, tokenizer)


def _read_ids(path: str) -> list[int]:
    """Token ids of a file: a JSON list, or numbers with blanks or commas between."""
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; --ids takes a file of token ids")
    try:
        words = read_text(file).replace(",", " ").strip(" \n\t[]").split()
        return [int(word) for word in words]
    except ValueError as error:
        raise ValueError(f"{path} is no list of token ids ({error})") from None


def _config_lines(a: GPTConfig, b: GPTConfig) -> list[str]:
    one, two = dataclasses.asdict(a), dataclasses.asdict(b)
    lines = [f"  {name}: {one[name]} | {two[name]}" for name in one if one[name] != two[name]]
    return ["config: equal"] if not lines else ["config differs (a | b):", *lines]


def _parameter_lines(a: Any, b: Any) -> list[str]:
    """One line per parameter that differs, and how many are equal to the bit."""
    one, two = ({"/".join(k): np.asarray(v) for k, v in flatten_dict(p).items()} for p in (a, b))
    lines, equal = [], 0
    for path in sorted(one.keys() | two.keys()):
        x, y = one.get(path), two.get(path)
        if x is None or y is None:
            lines.append(f"  {path}: only in {'a' if y is None else 'b'}")
        elif x.shape != y.shape:
            lines.append(f"  {path}: {x.shape} | {y.shape}")
        elif x.dtype == y.dtype and x.tobytes() == y.tobytes():
            equal += 1
        else:
            types = "" if x.dtype == y.dtype else f"  ({x.dtype} | {y.dtype})"
            lines.append(f"  {path}: {_difference(x, y)}{types}")
    head = f"parameters: {equal} of {len(one.keys() | two.keys())} equal to the bit"
    return [head + (", the others:" if lines else ""), *lines]


def _difference(x: Any, y: Any) -> str:
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    off = np.linalg.norm(x - y) / (np.linalg.norm(y) or 1.0)
    return f"max {np.abs(x - y).max():.3e}  relative L2 {off:.3e}"


def _layer_lines(a: Side, b: Side, ids: list[int]) -> list[str]:
    """What each block gives, the end of the stream, and the logits."""
    one, two = _run(a, ids), _run(b, ids)
    lines = [f"on {len(ids)} tokens, float32:"]
    for name in one | two:
        x, y = (side[name].shape if name in side else "-" for side in (one, two))
        lines.append(f"  {name}: {_difference(one[name], two[name]) if x == y else f'{x} | {y}'}")
    first, second = (int(side["logits"][-1].argmax()) for side in (one, two))
    same = "the same" if first == second else "another"
    return [*lines, f"the next token is {same}: {first} | {second}"]


def _run(side: Side, ids: list[int]) -> dict[str, np.ndarray]:
    """Layer name -> what it gives, `[T, D]`, and `logits` `[T, V]`."""
    # float32 throughout, whatever the file holds: in bfloat16 two orders of the same sums differ
    # by more than the errors that a comparison looks for.
    gpt = GPT(side.cfg, dtype=jnp.float32)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), side.params)
    wanted = lambda module, name: name == "hidden" or (module.name or "").startswith("h_")
    (logits, _), seen = jax.jit(
        lambda p, x: gpt.apply({"params": p}, x, capture_intermediates=wanted)
    )(params, jnp.asarray([ids], jnp.int32))
    blocks = (seen["intermediates"][f"h_{i}"]["__call__"] for i in range(side.cfg.n_layer))
    out = {f"layer {i}": np.asarray(block[0][0][0]) for i, block in enumerate(blocks)}
    out["final norm"] = np.asarray(seen["intermediates"]["hidden"][0][0][0])
    return out | {"logits": np.asarray(logits[0])}
