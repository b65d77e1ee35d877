"""GGUF files of classic models, for llama.cpp and all that is built on it (ollama, LM Studio, ...).

The architecture is Apertus (interop/apertus.py). A folder gets the file and a `Modelfile`, which
says to ollama what the file cannot.
"""

import importlib.resources
import json
import pathlib
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from nanochat_jax.config.convert import Quant
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.files import whole_folder
from nanochat_jax.interop import apertus, llama
from nanochat_jax.tokenizer import SPLIT_PATTERNS, Tokenizer, chat_format

# float16 is not offered: relu^2 leaves its range. Activations and cache are safe in float32.
KINDS: Mapping[str, Kind] = {"f32": Kind.F32, "bf16": Kind.BF16, "q8_0": Kind.Q8_0}
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32, "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}  # fmt: skip
# llama.cpp's names of our patterns with single digits; it has none for pairs.
PRE_TOKENIZERS = {"nanochat": "bailingmoe", "marks": "qwen35"}
_KNOWN = {pattern: of for of, pattern in SPLIT_PATTERNS.items()}
# What a small model needs so as not to repeat itself.
SAMPLING = dict(temperature=0.6, top_k=50, repeat_penalty=1.1)
_HERE = importlib.resources.files("nanochat_jax.interop")
_filled = lambda name, **more: string.Template(
    _HERE.joinpath(name).read_text("utf-8").strip()
).substitute(vars(chat_format), **more)


def differences(tokenizer: Tokenizer) -> list[str]:
    """What llama.cpp's tokenizer does otherwise than this one, for people."""
    if (known := _KNOWN.get(tokenizer.pattern)) is None:
        return [f"words are cut as nanochat does there, and not by {tokenizer.pattern}: other ids "
                "than it was trained on"]  # fmt: skip
    if known[1] == 1:
        return []
    return ["numbers are read digit by digit there, not in pairs: other ids than it was trained on"]


def write(
    folder: pathlib.Path, name: str, cfg: GPTConfig, state: Mapping[str, np.ndarray],
    tokenizer: Tokenizer, quant: Quant, check: Callable[[pathlib.Path], list[str]],
) -> list[str]:  # fmt: skip
    """Writes `<name>.gguf` and a Modelfile into a new folder, all of it or nothing.

    Args:
        check: asked of the finished file; what it raises leaves no folder.

    Returns what `check` found. Raises ValueError where the folder is there and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; choose another --dir, or remove it")
    with whole_folder(folder) as part:
        path = part / f"{name}.gguf"
        if quant in KINDS:
            write_file(path, name, cfg, state, tokenizer, quant)
        else:
            write_file(plain := part / "plain.gguf", name, cfg, state, tokenizer, "bf16")
            llama.quantise(plain, path, quant)
            plain.unlink()
        (part / "Modelfile").write_text(_modelfile(name, cfg), "utf-8")
        return check(path)


def write_file(
    path: pathlib.Path, name: str, cfg: GPTConfig, state: Mapping[str, np.ndarray],
    tokenizer: Tokenizer | None, quant: str,
) -> None:  # fmt: skip
    """Writes one file; without a tokenizer its model reads and gives ids alone."""
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.APERTUS])
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[quant])
    _add_shape(writer, cfg)
    if tokenizer is None:
        writer.add_tokenizer_model("none")
    else:
        _add_vocabulary(writer, tokenizer)
    writer.add_sampling_temp(SAMPLING["temperature"])
    writer.add_sampling_top_k(SAMPLING["top_k"])
    writer.add_sampling_penalty_repeat(SAMPLING["repeat_penalty"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.APERTUS, cfg.n_layer)
    for theirs, array in apertus.tensors(cfg, state):
        if ".act_fn." not in theirs:  # numbers of the header there
            kind = kind_of(array, KINDS[quant])
            data = gguf.quants.quantize(array, kind)
            writer.add_tensor(names.get_name(theirs, (".weight",)), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def kind_of(array: np.ndarray, wanted: Kind) -> Kind:
    """The type of one tensor: norms in float32, as everywhere; rows that no block divides in
    bfloat16."""
    if array.ndim < 2:
        return Kind.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if array.shape[-1] % block == 0 else Kind.BF16


def _add_shape(writer: gguf.GGUFWriter, cfg: GPTConfig) -> None:
    writer.add_vocab_size(cfg.vocab_size)
    writer.add_context_length(cfg.sequence_len)
    writer.add_embedding_length(cfg.n_embd)
    writer.add_block_count(cfg.n_layer)
    writer.add_feed_forward_length(4 * cfg.n_embd)
    writer.add_head_count(cfg.n_head)
    writer.add_head_count_kv(cfg.n_kv_head)
    writer.add_key_length(cfg.head_dim)
    writer.add_value_length(cfg.head_dim)
    writer.add_rope_dimension_count(cfg.head_dim)
    writer.add_rope_freq_base(cfg.rope_base)
    writer.add_layer_norm_rms_eps(cfg.norm_eps)
    every = lambda value: [float(value)] * cfg.n_layer
    writer.add_xielu_alpha_p(every(apertus.ALPHA_P))
    writer.add_xielu_alpha_n(every(apertus.ALPHA_N))
    writer.add_xielu_beta(every(apertus.BETA))
    writer.add_xielu_eps(every(apertus.EPS))


def _add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    tokens, merges = _letters(tokenizer)
    special = tokenizer.special_tokens.values()
    kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL
             for i in range(len(tokens))]  # fmt: skip
    end, bos = chat_format.stop_ids(tokenizer)
    writer.add_tokenizer_model("gpt2")
    words, _ = _KNOWN.get(tokenizer.pattern, ("nanochat", 1))
    writer.add_tokenizer_pre(PRE_TOKENIZERS[words])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(bos)
    writer.add_eos_token_id(end)
    # A base model ends a text where the next document would begin.
    writer.add_eot_token_id(bos)
    # The program puts <|bos|> in front, and so the template does not.
    writer.add_add_bos_token(True)
    writer.add_chat_template(_filled("gguf_template.jinja"))


def _letters(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """Every token by id and every merge, with a printable letter for each byte as in GPT-2."""
    model = json.loads(tokenizer.to_huggingface().to_str())["model"]
    tokens = {i: token for token, i in model["vocab"].items()}
    tokens |= {i: name for name, i in tokenizer.special_tokens.items()}
    merges: Sequence[Any] = model["merges"]
    return [tokens[i] for i in range(len(tokens))], [" ".join(pair) for pair in merges]


def _modelfile(name: str, cfg: GPTConfig) -> str:
    return (
        _filled("Modelfile.txt", file=f"{name}.gguf", num_ctx=cfg.sequence_len, **SAMPLING) + "\n"
    )
