"""A tokenizer of bytes, tiny random models, and a model that says what a script tells it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.models.gpt import Model, init_params
from nanochat_jax.serve.engine.calculator import use_calculator
from nanochat_jax.tokenizer import Tokenizer

BYTES = Tokenizer({bytes([i]): i for i in range(256)})


def random_model(recipe: str = "classic", sequence_len: int = 64, seed: int = 0, **shape) -> Model:
    """A two-layer model with every weight random, so that context matters."""
    shape = {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "n_embd": 32, "vocab_size": 265} | shape
    cfg = GPTConfig(sequence_len=sequence_len, **shape, **recipe_model_defaults(recipe))

    @jax.jit  # one program, which the compilation cache keeps
    def noisy():
        params = init_params(cfg, jax.random.key(seed))
        tree = jax.tree.structure(params)
        keys = jax.tree.unflatten(tree, jax.random.split(jax.random.key(seed + 1), tree.num_leaves))
        noise = lambda leaf, key: 0.3 * jax.random.normal(key, leaf.shape, leaf.dtype)
        return jax.tree.map(lambda leaf, key: leaf + noise(leaf, key), params, keys)

    return Model.create(cfg, noisy(), dtype="float32")


@dataclasses.dataclass(frozen=True)
class ScriptedGPT:
    """Row b's n-th choice is `params[b, n]`, whatever it is fed; the prompt has `prompt` tokens."""

    cfg: GPTConfig
    prompt: int
    dtype: Any = jnp.float32

    def apply(self, variables, tokens_BT, cache, valid_B=None):
        script_BN = variables["params"]
        B, T = tokens_BT.shape
        rows_B = jnp.arange(B)
        place_BT = cache.length_B[:, None] + jnp.arange(T)[None] - (self.prompt - 1)
        place_BT = jnp.clip(place_BT, 0, script_BN.shape[1] - 1)
        valid_B = jnp.full(B, T) if valid_B is None else valid_B
        logits_BTV = 50.0 * jax.nn.one_hot(
            script_BN[rows_B[:, None], place_BT], self.cfg.vocab_size
        )
        return logits_BTV, cache.replace(length_B=cache.length_B + valid_B)


def script_table(scripts: list[list[int]], end: int, length: int = 128) -> jax.Array:
    """The scripts as the stand-in's parameters: after its script a row chooses `end` for ever."""
    table = np.full((len(scripts), length), end, np.int32)
    for row, script in enumerate(scripts):
        table[row, : len(script)] = script
    return jnp.asarray(table)


def scripted_model(scripts: list[list[int]], prompt: int, vocab_size: int, end: int = 0) -> Model:
    """A model whose row b chooses `scripts[b]` and then `end` for ever."""
    shape = {"n_layer": 1, "n_head": 1, "n_kv_head": 1, "n_embd": 2}
    cfg = GPTConfig(sequence_len=128, vocab_size=vocab_size, **shape)
    return Model(ScriptedGPT(cfg, prompt), script_table(scripts, end))


@dataclasses.dataclass(frozen=True)
class TalkingGPT:
    """Answers every prompt with the same tokens, counted from assistant_start on.

    The count of a row lives where a real model keeps its last embedding.
    """

    cfg: GPTConfig
    begin: int
    dtype: Any = jnp.float32

    def apply(self, variables, tokens_BT, cache, valid_B=None):
        script_N = variables["params"]
        B, T = tokens_BT.shape
        count_B = cache.last_embed_BD[:, 0].astype(jnp.int32)
        count_B = jnp.where(tokens_BT[:, -1] == self.begin, 0, count_B + 1)
        next_B = script_N[jnp.clip(count_B, 0, script_N.shape[0] - 1)]
        logits_BV = 30.0 * jax.nn.one_hot(next_B, self.cfg.vocab_size)
        valid_B = jnp.full(B, T) if valid_B is None else valid_B
        moved_B1 = jnp.where(valid_B > 0, count_B, cache.last_embed_BD[:, 0].astype(jnp.int32))
        embed_BD = jnp.broadcast_to(moved_B1[:, None], cache.last_embed_BD.shape)
        cache = cache.replace(
            length_B=cache.length_B + valid_B, last_embed_BD=embed_BD.astype(jnp.float32)
        )
        return jnp.broadcast_to(logits_BV[:, None], (B, T, self.cfg.vocab_size)), cache


def talking_model(reply: list[int], sequence_len: int = 2048) -> Model:
    """A model that always says `reply` and ends."""
    shape = {"n_layer": 1, "n_head": 1, "n_kv_head": 1, "n_embd": 2, "vocab_size": 265}
    cfg = GPTConfig(sequence_len=sequence_len, **shape)
    script = jnp.asarray([*reply, BYTES.encode_special("<|assistant_end|>")], jnp.int32)
    return Model(TalkingGPT(cfg, BYTES.encode_special("<|assistant_start|>")), script)


def spoken(text: str) -> list[int]:
    """Token ids of `text`, in which `<<12+30>>` is a call of the calculator.

    Where the tool's answer is forced, the script holds filler of the same length.
    """
    ids: list[int] = []
    for i, part in enumerate(text.replace(">>", "<<").split("<<")):
        ids += [BYTES.encode_special("<|python_start|>")] * (i % 2) + BYTES.encode(part)
        if i % 2:
            ids += [BYTES.encode_special("<|python_end|>")]
            ids += [0] * (2 + len(str(use_calculator(part))))
    return ids


def compilations() -> list[str]:
    """A list that grows with everything that is compiled from now on."""
    compiled: list[str] = []
    listener = lambda name, _, **__: compiled.append(name) if "backend_compile" in name else None
    jax.monitoring.register_event_duration_secs_listener(listener)
    jax.jit(lambda x: x + len(compiled))(0)
    assert compiled, "the listener hears nothing: JAX calls the event by another name"
    compiled.clear()
    return compiled
