"""A GGUF file asked in llama.cpp itself, where `llama-cpp-python` is at hand."""

import ctypes
import importlib.util
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from nanochat_jax.tokenizer import Tokenizer

# Digits, scripts, vowels that are marks, blanks, contractions, what looks like a marker.
TEXT = (
    "In 1984 it's 3.14159, isn't it?  Two  blanks,\n\n\ttabs; naïve Ångström, Привет мир, "
    "مرحبا مَرْحَبًا, हिन्दी में, ภาษาไทยที่นี่, cafe\u0301, 你好世界, 🌍🚀 <|user_start|> 007 x=10**6"
)
QUESTION = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"})
REPLY = {"role": "assistant", "content": "left out"}
GREEDY = 64
# The mean difference of logits over their spread that a type may make. Measured on the trained
# demo: bf16 0.003, q8_0 0.009, q4_k_m 0.05.
TOLERANCE: Mapping[str, float] = {"f32": 0.002, "bf16": 0.015, "q8_0": 0.04, "q4_k_m": 0.2}


class Logits(Protocol):
    """Our side: ids int32 `[1, T]` -> float32 logits `[1, T, V]`."""

    def __call__(self, ids: Any, /) -> Any: ...


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _unsaid(level: int, text: bytes, data: int) -> None:
    """Where llama.cpp writes its pages to."""


def here() -> bool:
    return importlib.util.find_spec("llama_cpp") is not None


def quantise(source: pathlib.Path, target: pathlib.Path, quant: str) -> None:
    """Writes a GGUF file in one of llama.cpp's own types; ValueError where it cannot."""
    if not here():
        raise ValueError(f"{quant} is made by llama.cpp, which is not at hand: --quant q8_0, or "
                         "pip install llama-cpp-python (it compiles for minutes)")  # fmt: skip
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{quant.upper()}")
    params.nthread = os.cpu_count() or 1
    llama_cpp.llama_log_set(_unsaid, ctypes.c_void_p(0))
    files = str(source).encode(), str(target).encode()
    if llama_cpp.llama_model_quantize(*files, ctypes.byref(params)):
        raise ValueError(f"llama.cpp could not make {quant} of {source}; --quant q8_0 needs no "
                         "blocks of 256")  # fmt: skip


def check(
    path: pathlib.Path, model: Logits, tokenizer: Tokenizer, quant: str, *, same_digits: bool,
    softcap: float,
) -> list[str]:  # fmt: skip
    """What llama.cpp makes of a file beside what we do, for people.

    Args:
        same_digits: whether its tokenizer cuts numbers as ours does.
        softcap: of our logits; theirs have none, and are capped here before they are compared.

    Raises:
        ValueError: it reads other ids, or its logits are further off than the type explains.
    """
    llama = _open(path)
    text = TEXT if same_digits else "".join(c for c in TEXT if not c.isdigit())
    ids = llama.tokenize(text.encode(), add_bos=False, special=False)
    if ids != (own := tokenizer.encode(text)):
        raise ValueError(f"{path.name}: llama.cpp reads {text!r} as {ids}, we as {own}")
    _check_template(llama, tokenizer, path)
    context = int(llama.metadata["apertus.context_length"])  # llama.n_ctx() is rounded up
    begun = [tokenizer.get_bos_token_id(), *tokenizer.encode("One day, the")][: context // 2]
    room = min(GREEDY, context - len(begun) - 1)
    greedy = llama.generate(begun, temp=0.0, repeat_penalty=1.0)
    replied = [token for _, token in zip(range(room), greedy, strict=False)]
    ours, theirs = _both(llama, model, [*begun, *replied], softcap)
    same = int((ours[len(begun) - 1 : -1].argmax(-1) == np.array(replied)).sum())
    off = apart(ours, theirs, quant, path.name)
    return [f"llama.cpp: the same ids, {same} of {room} greedy tokens the same, logits "
            f"{off:.4f} of their spread apart on average"]  # fmt: skip


def apart(ours: np.ndarray, theirs: np.ndarray, quant: str, name: str) -> float:
    """The mean difference of logits `[T, V]` over the spread of ours.

    Raises:
        ValueError: the type does not explain it, or it is not a number; `name` is the file's.
    """
    off = float(np.abs(ours - theirs).mean() / ours.std())
    if not off <= TOLERANCE[quant]:  # NaN is greater than nothing
        raise ValueError(f"{name}: llama.cpp's logits are {off:.3f} of their spread from ours; "
                         f"{quant} explains {TOLERANCE[quant]}")  # fmt: skip
    return off


def _both(
    llama: Any, model: Logits, ids: list[int], softcap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Our logits of every position and theirs, float32 `[T, V]`."""
    llama.reset()
    llama.eval(ids)
    theirs = np.array(llama.scores[: len(ids)])
    if softcap:
        theirs = softcap * np.tanh(theirs / softcap)
    return np.asarray(model(np.array([ids], np.int32))[0]), theirs


def _check_template(llama: Any, tokenizer: Tokenizer, path: pathlib.Path) -> None:
    """The file's own chat template gives our ids, one <|bos|> in front."""
    import jinja2

    source = llama.metadata["tokenizer.chat_template"]
    text = jinja2.Template(source).render(messages=[*QUESTION], add_generation_prompt=True)
    ids = llama.tokenize(text.encode(), add_bos=True, special=True)
    own = tokenizer.render_for_completion({"messages": [*QUESTION, REPLY]})
    if ids != own:
        raise ValueError(f"{path.name}: its template gives {ids}, our chat format {own}")


def _open(path: pathlib.Path) -> Any:
    import llama_cpp

    # The cache in float32: relu^2 has large values, and the comparison is of weights.
    f32 = llama_cpp.GGML_TYPE_F32
    more = dict(type_k=f32, type_v=f32, verbose=False, n_gpu_layers=0)
    llama_cpp.llama_log_set(_unsaid, ctypes.c_void_p(0))
    try:
        return llama_cpp.Llama(str(path), n_ctx=0, logits_all=True, **more)
    except ValueError as error:
        raise ValueError(f"llama.cpp cannot load {path.name}: {error}") from error
