"""Our engine beside llama.cpp, on the same weights and cores: prompt and decoded tokens a second.

`python bench/peers.py [--size demo|92m] [--rows 1 8 32] [--kinds f32 q8_0] [--rounds 5]` writes
random weights of the portable recipe as GGUF, and answers so many prompts at once with both,
greedily, in turn; f32 stands beside our float32, q8_0 beside `--int8`. Needs llama-cpp-python
(`make test-llama` brings it). Medians of the rounds; the last line is one JSON object, `ratio`:
ours over llama.cpp's.
"""

import argparse
import ctypes
import json
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SIZES = {
    "demo": dict(n_layer=4, n_embd=128, n_head=1, n_kv_head=1, vocab_size=1152),
    "92m": dict(n_layer=8, n_embd=512, n_head=4, n_kv_head=4, vocab_size=65536),
}
PROMPT, REPLY = 64, 64  # tokens of a row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--kinds", nargs="+", default=["f32", "q8_0"], choices=["f32", "q8_0"])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    import jax
    import numpy as np

    from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
    from nanochat_jax.devices import cpu_count
    from nanochat_jax.models.gpt import Model, init_params

    cfg = GPTConfig(
        sequence_len=2 * (PROMPT + REPLY), **SIZES[args.size], **recipe_model_defaults("portable")
    )
    shapes = jax.eval_shape(lambda: init_params(cfg, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(0, 0.05, s.shape).astype(np.float32), shapes)
    model, found = Model.create(cfg, params, dtype="float32"), []
    for kind in args.kinds:
        with tempfile.TemporaryDirectory() as folder:
            theirs = LlamaCpp(write(pathlib.Path(folder), cfg, params, kind), max(args.rows))
            for rows in args.rows:
                prompts = rng.integers(300, cfg.vocab_size - 20, (rows, PROMPT)).tolist()
                ours = Ours(model, rows, int8=kind == "q8_0")
                found.append(both(ours, theirs, prompts, args.rounds) | {"kind": kind})
                print(told(found[-1]), flush=True)
    print(json.dumps({"size": args.size, "cores": cpu_count(), "found": found}))


def both(ours, theirs, prompts, rounds) -> dict:
    """Tokens a second of both, in turn, once each before that to compile and to wake up."""
    runs: dict[str, list[tuple[float, float]]] = {"ours": [], "llama.cpp": []}
    for number in range(rounds + 1):
        for name, engine in (("ours", ours), ("llama.cpp", theirs)):
            seconds = engine(prompts)
            if number:
                runs[name].append(seconds)
    tokens = len(prompts) * PROMPT, len(prompts) * (REPLY - 1)
    out: dict = {"rows": len(prompts)}
    for i, phase in enumerate(("prompt", "decode")):
        speed = {n: tokens[i] / statistics.median(r[i] for r in v) for n, v in runs.items()}
        out[phase] = {n: round(s, 1) for n, s in speed.items()}
        out[phase]["ratio"] = round(speed["ours"] / speed["llama.cpp"], 3)
    return out


def told(f: dict) -> str:
    parts = [f"{phase} {f[phase]['ours']:,.0f} / {f[phase]['llama.cpp']:,.0f} tokens/s "
             f"({f[phase]['ratio']:.2f}x)" for phase in ("prompt", "decode")]  # fmt: skip
    return f"{f['kind']:5} {f['rows']:3} rows: ours / llama.cpp: {', '.join(parts)}"


def write(folder, cfg, params, kind) -> pathlib.Path:
    """The weights as a GGUF file without a vocabulary."""
    from nanochat_jax.interop import gguf_file, huggingface

    path = folder / "model.gguf"
    state = huggingface.expressible(cfg, params, lossy=False)
    gguf_file.write_file(path, "peers", cfg, state, None, kind)
    return path


class Ours:
    """Seconds of (all prompts and one token each, the other tokens)."""

    def __init__(self, model, rows: int, int8: bool):
        from nanochat_jax.serve.engine import Engine

        self._engine = Engine(model, letters(model.cfg.vocab_size), slots=rows, int8=int8)

    def __call__(self, prompts) -> tuple[float, float]:
        seconds = [self._timed(prompts, tokens) for tokens in (1, REPLY)]
        return seconds[0], seconds[1] - seconds[0]

    def _timed(self, prompts, tokens: int) -> float:
        began = time.perf_counter()
        self._engine.complete(prompts, tokens, 0.0)
        return time.perf_counter() - began


def letters(size: int):
    """A tokenizer of so many ids: single bytes and made-up words."""
    from nanochat_jax.tokenizer import Tokenizer

    words = (bytes([65 + i // 4096, 65 + i // 64 % 64, 65 + i % 64]) for i in range(size - 265))
    return Tokenizer({raw: i for i, raw in enumerate([*(bytes([i]) for i in range(256)), *words])})


class LlamaCpp:
    """The same, by its C functions: one batch of all rows a step."""

    def __init__(self, path: pathlib.Path, rows: int):
        import llama_cpp

        from nanochat_jax.devices import cpu_count

        self._c = c = llama_cpp
        self._quiet = c.llama_log_callback(lambda *_: None)
        c.llama_log_set(self._quiet, ctypes.c_void_p(0))
        c.llama_backend_init()
        self._model = c.llama_model_load_from_file(
            str(path).encode(), c.llama_model_default_params()
        )
        params = c.llama_context_default_params()
        params.n_ctx = rows * (PROMPT + REPLY)
        params.n_batch = params.n_ubatch = max(512, rows)
        params.n_seq_max = rows
        params.n_threads = params.n_threads_batch = cpu_count()
        params.kv_unified = False
        self._context = c.llama_init_from_model(self._model, params)
        self._batch = c.llama_batch_init(params.n_batch, 0, 1)
        self._vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self._model))

    def __call__(self, prompts) -> tuple[float, float]:
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)
        began, last = time.perf_counter(), []
        together = max(1, self._batch_size() // PROMPT)
        for first in range(0, len(prompts), together):
            some = prompts[first : first + together]
            numbered = ((first + row, prompt) for row, prompt in enumerate(some))
            entries = [(token, i, row, i == PROMPT - 1)
                       for row, prompt in numbered for i, token in enumerate(prompt)]  # fmt: skip
            last += self._decode(entries)
        read = time.perf_counter()
        for position in range(PROMPT, PROMPT + REPLY - 1):
            last = self._decode([(token, position, row, True) for row, token in enumerate(last)])
        return read - began, time.perf_counter() - read

    def _batch_size(self) -> int:
        return self._c.llama_n_batch(self._context)

    def _decode(self, entries) -> list[int]:
        """One call; the likeliest next token of each entry that asks for it."""
        import numpy as np

        batch, asked = self._batch, []
        batch.n_tokens = len(entries)
        for i, (token, position, row, logits) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = row, logits
            asked += [i] * logits
        if self._c.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        rows = (self._c.llama_get_logits_ith(self._context, i) for i in asked)
        return [int(np.ctypeslib.as_array(row, (self._vocab,)).argmax()) for row in rows]


if __name__ == "__main__":
    main()
