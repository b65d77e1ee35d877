"""Attention in blocks is attention, and holds no array with two sequence axes."""

import re

import jax
import jax.numpy as jnp
import pytest

from nanochat_jax.models.attention import attend
from nanochat_jax.models.block_attention import MOST_BLOCKS, SHORTEST_BLOCK, block_attention

CASES = {
    "one block": (2, 40, 4, 4, None),
    "an end that fills no block": (1, 300, 4, 2, None),
    "a window within a block": (2, 300, 4, 2, 50),
    "a window over blocks": (1, 400, 2, 2, 200),
    "a window as long as the row": (1, 260, 2, 1, 260),
}


def arrays(B, T, N, K, H=16, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = (B, T, N, H), (B, T, K, H), (B, T, K, H), (B, T, N, H)
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


def positions(q):
    B, T = q.shape[:2]
    return jnp.broadcast_to(jnp.arange(T), (B, T))


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_are_those_of_plain_attention(case):
    B, T, N, K, window = CASES[case]
    q, k, v, cotangent = arrays(B, T, N, K)

    @jax.jit
    def both(q, k, v):
        plain = lambda *qkv: attend(*qkv, positions(q), window)
        blocks = lambda *qkv: block_attention(*qkv, window)
        given = lambda f: (out := jax.vjp(f, q, k, v))[1](cotangent) + (out[0],)
        return given(blocks), given(plain)

    for ours, theirs in zip(*both(q, k, v), strict=True):
        assert jnp.linalg.norm(ours - theirs) <= 1e-6 * jnp.linalg.norm(theirs)


def test_bfloat16_is_as_near_as_plain_attention_is():
    q, k, v, _ = arrays(1, 300, 4, 2)
    exact = attend(q, k, v, positions(q), None)
    low = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    off = lambda out: jnp.linalg.norm(out.astype(jnp.float32) - exact)
    plain = off(attend(*low, positions(q), None))
    assert off(block_attention(*low)) <= 1.05 * plain


@pytest.mark.parametrize("window", [None, 128])
def test_forward_and_backward_hold_no_array_of_two_whole_sequence_axes(window):
    T = SHORTEST_BLOCK * MOST_BLOCKS
    q, k, v, cotangent = arrays(1, T, 2, 2)
    program = jax.jit(lambda q, k, v: jax.vjp(lambda *a: block_attention(*a, window), q, k, v)[1](
        cotangent
    ))  # fmt: skip
    text = program.lower(q, k, v).as_text()
    assert re.search(rf"tensor<[x\d]*{T}x", text)
    assert not re.search(rf"tensor<[x\d]*\b{T}x{T}x", text)
