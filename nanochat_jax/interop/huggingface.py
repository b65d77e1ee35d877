"""Folders that `transformers` loads (its `NanoChatForCausalLM`), written and read.

That class is nanochat of October 2025 with rotary tables in float32, so a model of the classic
recipe fits whole; what later recipes added has no place in it.
"""

import dataclasses
import json
import logging
import os
import pathlib
import re
import shutil
import string
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nanochat_jax.config.gpt import NORM_EPS, GPTConfig
from nanochat_jax.interop.eras import expected_shapes
from nanochat_jax.interop.names import from_nanochat, to_nanochat
from nanochat_jax.tokenizer import Tokenizer, chat_format

log = logging.getLogger(__name__)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
OWN = "nanochat_jax"  # our key in config.json: what transformers computes in its own way
DTYPES = ("rope_table_dtype", "softcap_dtype")
SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings",
)  # fmt: skip
TO_HF = (
    (r"transformer\.wte\.weight", "model.embed_tokens.weight"),
    (
        r"transformer\.h\.(\d+)\.attn\.c_([qkv])\.weight",
        r"model.layers.\1.self_attn.\2_proj.weight",
    ),
    (r"transformer\.h\.(\d+)\.attn\.c_proj\.weight", r"model.layers.\1.self_attn.o_proj.weight"),
    (r"transformer\.h\.(\d+)\.mlp\.c_fc\.weight", r"model.layers.\1.mlp.fc1.weight"),
    (r"transformer\.h\.(\d+)\.mlp\.c_proj\.weight", r"model.layers.\1.mlp.fc2.weight"),
    (r"lm_head\.weight", "lm_head.weight"),
)
# The chat format as a Jinja template, for those who have transformers and not our encoder.
TEMPLATE = string.Template("""\
{%- macro parts(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'python' -%}$PYTHON_START{{ part.text }}$PYTHON_END
{%- elif part.type == 'python_output' -%}$OUTPUT_START{{ part.text }}$OUTPUT_END
{%- else -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
$BOS
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' and loop.first -%}
{%- set ns.system = parts(message.content) + '\\n\\n' -%}
{%- elif message.role == 'user' -%}
$USER_START{{ ns.system }}{{ parts(message.content) }}$USER_END
{%- set ns.system = '' -%}
{%- elif message.role == 'assistant' -%}
$ASSISTANT_START{{ parts(message.content) }}$ASSISTANT_END
{%- else -%}
{{ raise_exception('a message of role ' + message.role + ' out of place') }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}$ASSISTANT_START{%- endif -%}""").substitute(vars(chat_format))


@dataclasses.dataclass(frozen=True)
class Folder:
    """What a folder of transformers holds; `params` are ours, float32, kernels `[in, out]`."""

    cfg: GPTConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    notes: tuple[str, ...]


def export(
    folder: pathlib.Path,
    cfg: GPTConfig,
    params: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    lossy: bool = False,
) -> pathlib.Path:
    """Writes the folder, all of it or nothing.

    Raises:
        ValueError: the folder is there already, or the model has what the format has not; the
            message lists it. `lossy` leaves it out instead.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; choose another --dir, or remove it")
    state = to_nanochat(params)
    lost = lost_in(cfg, state)
    if lost and not lossy:
        raise ValueError(
            "the huggingface format cannot express this model; it would lose "
            f"{'; '.join(lost)}. Export with --format nanochat, train with --recipe classic, or "
            "insist with --lossy"
        )
    if lost:
        log.warning("written without %s: the model will answer differently", "; ".join(lost))
    part = folder.parent / f".{folder.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        save_file(dict(_to_hf(cfg, state)), part / WEIGHTS, metadata={"format": "pt"})
        for name, value in _texts(cfg, state, tokenizer).items():
            (part / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        (part / "tokenizer.json").write_text(tokenizer.to_huggingface().to_str())
        (part / "chat_template.jinja").write_text(TEMPLATE)
        if folder.exists():
            folder.rmdir()
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def lost_in(cfg: GPTConfig, state: Mapping[str, np.ndarray]) -> list[str]:
    """What the format has no place for; tensors that change nothing are not missed."""
    neutral = {"resid_lambdas": 1.0, "x0_lambdas": 0.0, "smear_lambda": 0.0, "backout_lambda": 0.0}
    without = {k: np.asarray(state[k], np.float32) for k in neutral if k in state}
    lost = [k for k, v in without.items() if np.any(v != neutral[k])]
    lost += [k for k in state if k.startswith("value_embeds.") or ".ve_gate." in k]
    lost += ["smear_gate.weight"] * ("smear_lambda" in lost)
    short = [i for i, w in enumerate(cfg.masks) if w is not None and w < cfg.sequence_len - 1]
    lost += [f"the short windows of layers {', '.join(map(str, short))}"] * bool(short)
    lost += [f"the query and key scale {cfg.qk_scale:g}"] * (cfg.qk_scale != 1.0)
    return lost


def load(folder: pathlib.Path) -> Folder:
    """Reads a folder that `transformers` or `export` wrote.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: another architecture, an unknown tensor or shape, a damaged file.
    """
    config = _json(folder / "config.json")
    cfg = config_of(config)
    own = dict(_from_hf(folder))
    want = expected_shapes(cfg)
    for key in sorted(want.keys() | own.keys()):
        if key not in want or key not in own:
            raise ValueError(
                f"{folder}: {_hf_name(key)} is {'missing' if key in want else 'unknown'}; "
                "is it a nanochat model of transformers, whole?"
            )
        if own[key].shape != want[key]:
            raise ValueError(
                f"{folder}: {_hf_name(key)} is {own[key].shape}, config.json asks for {want[key]}"
            )
    tokenizer = Tokenizer.from_tokenizer_json(folder / "tokenizer.json")
    notes = (f"transformers model: {cfg.n_layer} layers, width {cfg.n_embd}",)
    if cfg.rope_table_dtype == "float32":
        notes += ("rotary tables in float32, as transformers computes them",)
    return Folder(cfg, from_nanochat(own), tokenizer, notes)


def config_of(config: Mapping[str, Any]) -> GPTConfig:
    """The GPTConfig of a `config.json`; raises ValueError for another architecture."""
    if config.get("model_type") != "nanochat":
        raise ValueError(
            f"config.json is of model_type {config.get('model_type')!r}; expected 'nanochat'"
        )
    for name in SIZES:
        if type(config.get(name)) is not int:
            raise ValueError(f"config.json: {name} is {config.get(name)!r}; expected a number")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", "default")
    other = {"rope_type": kind != "default", "tied": config.get("tie_word_embeddings", False),
             "attention_bias": config.get("attention_bias", False),
             "hidden_act": config.get("hidden_act", "relu2") != "relu2"}  # fmt: skip
    hidden = config["hidden_size"]
    other["intermediate_size"] = config["intermediate_size"] != 4 * hidden
    if any(other.values()):
        wrong = ", ".join(k for k, v in other.items() if v)
        raise ValueError(f"config.json has a {wrong} that nanochat never had")
    cap = config.get("final_logit_softcapping")
    return GPTConfig(
        sequence_len=config["max_position_embeddings"],
        vocab_size=config["vocab_size"],
        n_layer=config["num_hidden_layers"],
        n_head=config["num_attention_heads"],
        n_kv_head=config.get("num_key_value_heads") or config["num_attention_heads"],
        n_embd=hidden,
        rope_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        logit_softcap=15.0 if cap is None else float(cap),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        **{name: config.get(OWN, {}).get(name, "float32") for name in DTYPES},
    )


def _texts(
    cfg: GPTConfig, state: Mapping[str, np.ndarray], tokenizer: Tokenizer
) -> dict[str, dict[str, Any]]:
    """The JSON files by name."""
    bos, end = tokenizer.get_bos_token_id(), tokenizer.encode_special(chat_format.ASSISTANT_END)
    ids = dict(bos_token_id=bos, eos_token_id=end, pad_token_id=end)
    config = dict(
        architectures=["NanoChatForCausalLM"],
        model_type="nanochat",
        vocab_size=cfg.vocab_size,
        hidden_size=cfg.n_embd,
        intermediate_size=4 * cfg.n_embd,
        num_hidden_layers=cfg.n_layer,
        num_attention_heads=cfg.n_head,
        num_key_value_heads=cfg.n_kv_head,
        max_position_embeddings=cfg.sequence_len,
        hidden_act="relu2",
        attention_bias=False,
        attention_dropout=0.0,
        rms_norm_eps=NORM_EPS if cfg.norm_eps == NORM_EPS else cfg.norm_eps,
        final_logit_softcapping=cfg.logit_softcap,
        rope_parameters=dict(rope_type="default", rope_theta=cfg.rope_base),
        tie_word_embeddings=False,
        initializer_range=0.02,
        use_cache=True,
        dtype=str(state["lm_head.weight"].dtype),
        **ids,
        **{OWN: {name: getattr(cfg, name) for name in DTYPES}},
    )
    generation = dict(ids, eos_token_id=[end, bos], do_sample=True, temperature=0.8, top_k=50)
    stop = chat_format.ASSISTANT_END
    names = dict(bos_token=chat_format.BOS, eos_token=stop, pad_token=stop)
    words = dict(
        tokenizer_class="PreTrainedTokenizerFast",
        model_max_length=cfg.sequence_len,
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE,
        **names,
    )
    return {
        "config.json": config,
        "generation_config.json": generation,
        "tokenizer_config.json": words,
        "special_tokens_map.json": names,
    }


def _to_hf(cfg: GPTConfig, state: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """(name there, array): rows of the real vocabulary, contiguous as the file format demands."""
    kept = expected_shapes(
        dataclasses.replace(
            cfg, value_embeds=False, residual_scalars=False, smear=False, backout=False
        )
    )
    for key in kept:
        array = state[key]
        if key in ("transformer.wte.weight", "lm_head.weight"):
            array = array[: cfg.vocab_size]
        yield _hf_name(key), np.ascontiguousarray(array)


def _from_hf(folder: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    """(nanochat's key, float32 array) of every tensor, from one file or several with an index."""
    files = [folder / WEIGHTS]
    if (folder / INDEX).exists():
        files = [folder / f for f in sorted(set(_json(folder / INDEX)["weight_map"].values()))]
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file} is missing; copy the whole folder")
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():
                    yield _own_name(name, file), np.asarray(tensors.get_tensor(name), np.float32)
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged ({error}); copy it again") from None


def _hf_name(key: str) -> str:
    return next((re.sub(own, hf, key) for own, hf in TO_HF if re.fullmatch(own, key)), key)


FROM_HF = (
    (r"model\.embed_tokens\.weight", "transformer.wte.weight"),
    (
        r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.weight",
        r"transformer.h.\1.attn.c_\2.weight",
    ),
    (r"model\.layers\.(\d+)\.self_attn\.o_proj\.weight", r"transformer.h.\1.attn.c_proj.weight"),
    (r"model\.layers\.(\d+)\.mlp\.fc1\.weight", r"transformer.h.\1.mlp.c_fc.weight"),
    (r"model\.layers\.(\d+)\.mlp\.fc2\.weight", r"transformer.h.\1.mlp.c_proj.weight"),
    (r"lm_head\.weight", "lm_head.weight"),
)


def _own_name(name: str, file: pathlib.Path) -> str:
    for hf, own in FROM_HF:
        if re.fullmatch(hf, name):
            return re.sub(hf, own, name)
    raise ValueError(f"{file}: tensor {name!r} is none of a nanochat model of transformers")


def _json(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; --dir takes a whole folder of transformers")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); copy it again") from None
