"""Folders that `transformers` loads, written (`NanoChatForCausalLM`, Apertus) and read (the first).

`NanoChatForCausalLM` is nanochat of October 2025 with rotary tables in float32, so a model of the
classic recipe fits whole; what later recipes added has no place in it, nor in Apertus
(interop/apertus.py), which more programs run.
"""

import dataclasses
import importlib.resources
import json
import logging
import pathlib
import string
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.files import whole_folder
from nanochat_jax.interop import apertus
from nanochat_jax.interop.eras import expected_shapes, mismatches
from nanochat_jax.interop.names import from_nanochat, rename, to_nanochat
from nanochat_jax.tokenizer import Tokenizer, chat_format

log = logging.getLogger(__name__)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Our key in config.json: what transformers computes in its own way. Its rotary tables are float32,
# nanochat's were bfloat16, which alone moves logits by 1.3e-2; who reads the folder here gets them
# back as they were.
OWN = "nanochat_jax"
DTYPES = ("rope_table_dtype", "softcap_dtype")
# A size in our config, and its name in config.json.
SIZES = dict(vocab_size="vocab_size", n_embd="hidden_size", n_layer="num_hidden_layers",
             n_head="num_attention_heads", sequence_len="max_position_embeddings")  # fmt: skip
# What nanochat never varied. It is written, since the defaults of transformers are not all these.
FIXED = dict(hidden_act="relu2", attention_bias=False, tie_word_embeddings=False)
# nanochat's key, and the name in a file of transformers.
KEYS_AND_NAMES = (
    ("transformer.wte.weight", "model.embed_tokens.weight"),
    ("transformer.h.{i}.attn.c_{qkv}.weight", "model.layers.{i}.self_attn.{qkv}_proj.weight"),
    ("transformer.h.{i}.attn.c_proj.weight", "model.layers.{i}.self_attn.o_proj.weight"),
    ("transformer.h.{i}.mlp.c_fc.weight", "model.layers.{i}.mlp.fc1.weight"),
    ("transformer.h.{i}.mlp.c_proj.weight", "model.layers.{i}.mlp.fc2.weight"),
    ("lm_head.weight", "lm_head.weight"),
)
# The chat format as a Jinja template, for those who have transformers and not our encoder.
_FILE = importlib.resources.files("nanochat_jax.interop").joinpath("chat_template.jinja")
TEMPLATE = string.Template(_FILE.read_text("utf-8").rstrip()).substitute(vars(chat_format))


@dataclasses.dataclass(frozen=True)
class HFModel:
    """What a folder of transformers holds; `params` are ours, float32, kernels `[in, out]`."""

    cfg: GPTConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    notes: tuple[str, ...]


def export(
    folder: pathlib.Path, cfg: GPTConfig, params: Mapping[str, Any], tokenizer: Tokenizer, *,
    lossy: bool = False, as_apertus: bool = False,
) -> pathlib.Path:  # fmt: skip
    """Writes the folder, all of it or nothing.

    Raises:
        ValueError: the folder is there already, or the model has what the format has not; the
            message lists it. `lossy` leaves it out instead.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; choose another --dir, or remove it")
    state = expressible(cfg, params, lossy)
    tensors = apertus.tensors(cfg, state) if as_apertus else _to_hf(cfg, state)
    kind = apertus.config(cfg) if as_apertus else _nanochat_config(cfg)
    with whole_folder(folder) as part:
        written = dict(tensors)
        save_file(written, part / WEIGHTS, metadata={"format": "pt"})
        dtype = written["lm_head.weight"].dtype
        for name, value in _texts(cfg, kind | {"dtype": str(dtype)}, tokenizer).items():
            text = json.dumps(value, indent=2, ensure_ascii=False)
            (part / name).write_text(text + "\n", "utf-8")
        (part / "tokenizer.json").write_text(tokenizer.to_huggingface().to_str(), "utf-8")
        (part / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    return folder


def expressible(cfg: GPTConfig, params: Mapping[str, Any], lossy: bool) -> dict[str, np.ndarray]:
    """The state dict of the classic part of a model, in the order of nanochat's modules.

    Raises:
        ValueError: there is more to it than that, and `lossy` does not say to leave it out.
    """
    state = to_nanochat(params)
    lost = lost_in(cfg, state)
    if lost and not lossy:
        raise ValueError(
            "this format has no place for all of the model. Train one for other programs with "
            "--recipe portable (the demo as such: python -m scripts.speedrun --config "
            "configs/cpu-portable.toml --fresh), or export with --format nanochat; --lossy would "
            f"leave out {'; '.join(lost)}"
        )
    if lost:
        log.warning("written without %s: the model will answer differently", "; ".join(lost))
    classic = dict(value_embeds=False, residual_scalars=False, smear=False, backout=False)
    return {key: state[key] for key in expected_shapes(dataclasses.replace(cfg, **classic))}


def lost_in(cfg: GPTConfig, state: Mapping[str, np.ndarray]) -> list[str]:
    """What the format has no place for; tensors that change nothing are not missed."""
    # With these values a block sees the stream as it is, and nothing is mixed in or taken away.
    neutral = {"resid_lambdas": 1.0, "x0_lambdas": 0.0, "smear_lambda": 0.0, "backout_lambda": 0.0}
    without = {k: np.asarray(state[k], np.float32) for k in neutral if k in state}
    lost = [k for k, v in without.items() if np.any(v != neutral[k])]
    lost += [k for k in state if k.startswith("value_embeds.") or ".ve_gate." in k]
    lost += ["smear_gate.weight"] * ("smear_lambda" in lost)
    # A window that reaches the first position from the last hides nothing.
    short = [i for i, w in enumerate(cfg.masks) if w is not None and w < cfg.sequence_len - 1]
    lost += [f"the short windows of layers {', '.join(map(str, short))}"] * bool(short)
    lost += [f"the query and key scale {cfg.qk_scale:g}"] * (cfg.qk_scale != 1.0)
    return lost


def load(folder: pathlib.Path) -> HFModel:
    """Reads a folder that `transformers` or `export` wrote; FileNotFoundError for a missing file.

    ValueError: another architecture, an unknown tensor or shape, a damaged file.
    """
    cfg = config_of(_json(folder / "config.json"))
    own = dict(_from_hf(folder))
    shapes = {rename(key, KEYS_AND_NAMES): value.shape for key, value in own.items()}
    expected = {rename(k, KEYS_AND_NAMES): shape for k, shape in expected_shapes(cfg).items()}
    if mismatch := mismatches(shapes, expected):
        raise ValueError(f"{folder} is not the model that its config.json describes: {mismatch}")
    tokenizer = Tokenizer.from_tokenizer_json(folder / "tokenizer.json")
    notes = (f"transformers model: {cfg.n_layer} layers, width {cfg.n_embd}",)
    if cfg.rope_table_dtype == "float32":
        notes += ("rotary tables in float32, as transformers computes them",)
    return HFModel(cfg, from_nanochat(own), tokenizer, notes)


def config_of(config: Mapping[str, Any]) -> GPTConfig:
    """The GPTConfig of a `config.json`; raises ValueError for another architecture."""
    if (kind := config.get("model_type")) != "nanochat":
        raise ValueError(f"config.json is of model_type {kind!r}; expected 'nanochat'")
    for name in (*SIZES.values(), "intermediate_size"):
        if type(config.get(name)) is not int:
            raise ValueError(f"config.json: {name} is {config.get(name)!r}; expected a number")
    sizes = {ours: config[theirs] for ours, theirs in SIZES.items()}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ValueError(f"config.json: its rope parameters are {rope!r}; expected an object")
    rope = {"rope_type": rope.get("type"), **rope}  # "type": as transformers wrote it before 5
    fixed = FIXED | {"intermediate_size": 4 * sizes["n_embd"], "rope_type": "default"}
    given = fixed | {key: value for key, value in (config | rope).items() if value is not None}
    if other := [name for name in fixed if given[name] != fixed[name]]:
        raise ValueError(f"config.json has a {', '.join(other)} that nanochat never had")
    # The defaults are those of transformers' own class: an absent key means its value there, and a
    # cap of null none.
    cap = config.get("final_logit_softcapping", 15.0)
    return GPTConfig(
        **sizes,
        n_kv_head=config.get("num_key_value_heads") or sizes["n_head"],
        rope_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        logit_softcap=float(cap or 0.0),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        **{name: config.get(OWN, {}).get(name, "float32") for name in DTYPES},
    )


def _nanochat_config(cfg: GPTConfig) -> dict[str, Any]:
    own = dataclasses.asdict(cfg)
    return dict(
        architectures=["NanoChatForCausalLM"], model_type="nanochat",
        **{theirs: own[ours] for ours, theirs in SIZES.items()}, **FIXED,
        intermediate_size=4 * cfg.n_embd, num_key_value_heads=cfg.n_kv_head, attention_dropout=0.0,
        # torch's rms_norm takes the epsilon of float32 where none is given, transformers 1e-6; with
        # the same one, and tables of float32, logits were equal to the bit.
        rms_norm_eps=cfg.norm_eps,
        final_logit_softcapping=cfg.logit_softcap or None,
        rope_parameters=dict(rope_type="default", rope_theta=cfg.rope_base),
        initializer_range=0.02, use_cache=True,
        **{OWN: {name: own[name] for name in DTYPES}},
    )  # fmt: skip


def _texts(
    cfg: GPTConfig, kind: Mapping[str, Any], tokenizer: Tokenizer
) -> dict[str, dict[str, Any]]:
    """The JSON files by name; `kind`: what config.json says of the architecture."""
    end, bos = chat_format.stop_ids(tokenizer)
    ids = dict(bos_token_id=bos, eos_token_id=end, pad_token_id=end)
    # A base model ends a text with <|bos|>, where the next document would begin.
    generation = dict(ids, eos_token_id=[end, bos], do_sample=True, temperature=0.8, top_k=50)
    stop = chat_format.ASSISTANT_END
    names = dict(bos_token=chat_format.BOS, eos_token=stop, pad_token=stop)
    words = dict(
        tokenizer_class="PreTrainedTokenizerFast", model_max_length=cfg.sequence_len,
        clean_up_tokenization_spaces=False, chat_template=TEMPLATE, **names,
    )  # fmt: skip
    return {"config.json": {**kind, **ids}, "generation_config.json": generation,
            "tokenizer_config.json": words, "special_tokens_map.json": names}  # fmt: skip


def _to_hf(cfg: GPTConfig, state: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """(name there, array): rows of the real vocabulary, contiguous as the file format demands."""
    for key, array in state.items():
        if key in ("transformer.wte.weight", "lm_head.weight"):
            # transformers does not cut logits, so a padding row would be a token to sample.
            array = array[: cfg.vocab_size]
        # safetensors writes the raw buffer: a transposed view would be saved wrong, without error.
        yield rename(key, KEYS_AND_NAMES), np.ascontiguousarray(array)


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
                    key = rename(name, KEYS_AND_NAMES, back=True)
                    yield key, np.asarray(tensors.get_tensor(name), np.float32)
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged ({error}); copy it again") from None
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None


def _json(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; --dir takes a whole folder of transformers")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); copy it again") from None
