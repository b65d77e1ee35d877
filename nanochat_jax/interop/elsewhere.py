"""Models for programs that are not nanochat: transformers' folders, GGUF files."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from nanochat_jax.checkpoint.store import Saved
from nanochat_jax.config.convert import Export
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.interop import apertus, huggingface, llama
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import Tokenizer

Written = tuple[pathlib.Path, list[str]]


def transformers(
    command: Export, cfg: GPTConfig, params: Mapping[str, Any], tokenizer: Tokenizer
) -> Written:
    """A folder for `AutoModelForCausalLM`, as NanoChat or as Apertus."""
    out, as_apertus = pathlib.Path(command.dir).expanduser(), command.format == "apertus"
    folder = huggingface.export(
        out, cfg, params, tokenizer, lossy=command.lossy, as_apertus=as_apertus
    )
    told = apertus.differences(cfg) if as_apertus else []
    return folder, [*told, "load it with transformers.AutoModelForCausalLM.from_pretrained"]


def gguf(command: Export, saved: Saved, params: Mapping[str, Any], tokenizer: Tokenizer) -> Written:
    """A folder with a GGUF file, which is asked in llama.cpp itself where that is at hand."""
    from nanochat_jax.interop import gguf_file

    cfg, out = saved.cfg, pathlib.Path(command.dir).expanduser()
    state = huggingface.expressible(cfg, params, command.lossy)
    name = command.as_name or f"nanochat-{command.source}-{saved.path.parent.name}"
    apart = gguf_file.differences(tokenizer)

    def check(path: pathlib.Path) -> list[str]:
        size = f"{path.name}: {path.stat().st_size / 1e6:.1f} MB"
        if not llama.here():
            return [size, "not tried: `pip install llama-cpp-python`, and it is asked in llama.cpp"]
        plain = dataclasses.replace(cfg, rope_table_dtype="float32")
        model = Model.create(plain, params, dtype="float32")
        told = llama.check(
            path, model, tokenizer, command.quant, same_digits=not apart, softcap=cfg.logit_softcap
        )
        return [size, *told]

    target = f"{name}-{command.quant}"
    found = gguf_file.write(out, target, cfg, state, tokenizer, command.quant, check)
    told = [*apertus.differences(cfg), *apart, *found]
    return out, [*told, f"for ollama: ollama create {name} -f {out / 'Modelfile'}"]
