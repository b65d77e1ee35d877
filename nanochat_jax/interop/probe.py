"""Which of the models that its keys allow a checkpoint is: by a flag, or by the loss on a text."""

import dataclasses
import logging
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax.config.convert import Import
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.data.batch import MicroBatch
from nanochat_jax.evals.bpb import bits_per_byte
from nanochat_jax.interop import eras, nanochat
from nanochat_jax.models.gpt import Model
from nanochat_jax.texts import read_text
from nanochat_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def choose_era(
    contents: nanochat.Contents, tokenizer: Tokenizer, command: Import
) -> tuple[eras.Detected, list[str]]:
    """The era after `--softcap` and `--probe`, and lines that say why."""
    era = contents.era
    if not 0 <= command.softcap < float("inf"):
        raise ValueError(f"--softcap is {command.softcap:g}; expected a number above 0, e.g. 15")
    config, why, lines = era.config, (), []
    if command.softcap:
        config = dataclasses.replace(era.config, logit_softcap=command.softcap)
        why = (f"softcap {command.softcap:g} as given",)
    elif command.probe:
        scored = _probe(contents, tokenizer, command.probe)
        lines = [f"{bpb:.4f} bits per byte  {name}" for bpb, name, _ in scored]
        if len(scored) > 1:
            (bpb, name, config), (second, *_) = scored[:2]
            lines.append(f"margin {second - bpb:.4f} bits per byte: {name} is taken")
            why = (f"probe: {name}",)
    elif era.others:
        others = ", ".join(name for name, _ in era.others)
        log.warning("also possible: %s; --probe TEXT compares them on a text", others)
    era = dataclasses.replace(era, config=config, why=(*era.why, *why))
    return era, [str(era), *lines]


def _probe(
    contents: nanochat.Contents, tokenizer: Tokenizer, text: str
) -> list[tuple[float, str, GPTConfig]]:
    """(bits per byte, name, config) of each candidate on a text or a file of it, best first.

    Keys cannot tell constants, but a trained model has its lowest loss under its own.
    """
    # A text is tried as a name only where the system could take it for one.
    file = pathlib.Path(text).expanduser()
    text = read_text(file) if len(text) < 4096 and file.is_file() else text
    ids = [tokenizer.get_bos_token_id(), *tokenizer.encode(text)]
    if len(ids) < 3:
        raise ValueError("--probe needs a text of some words, or a file of it")
    token_bytes_V = np.asarray(tokenizer.token_bytes())
    params = jax.tree.map(jnp.asarray, contents.params)
    scored = []
    for name, cfg in (("as read", contents.era.config), *contents.era.others):
        model = Model.create(cfg, params, dtype="float32")
        rows = _rows(ids, cfg.sequence_len)
        scored.append((bits_per_byte(model, rows, token_bytes_V), name, cfg))
    return sorted(scored, key=lambda candidate: candidate[0])


def _rows(ids: list[int], T: int) -> list[MicroBatch]:
    """The ids as rows of at most `T` tokens, each predicting the next; the last one is padded."""
    count = len(ids) - 1
    T = min(T, count)
    inputs_N1T = np.zeros((math.ceil(count / T), 1, T), np.int32)
    targets_N1T = np.full_like(inputs_N1T, -1)
    inputs_N1T.flat[:count], targets_N1T.flat[:count] = ids[:-1], ids[1:]
    return [MicroBatch(*row) for row in zip(inputs_N1T, targets_N1T, strict=True)]
