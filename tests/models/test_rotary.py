"""The rotary tables have torch's numbers, whatever the width of a head."""

import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models.attention import rotary_tables

# sin(1999 / base^(2i/H)) as torch 2.13 computes it on a CPU. A width that is no power of two has
# exponents that are rounded, and far out in a row that moves the angle.
SINES = {
    (12, 1e4): [0.81170905, -0.26986635, -0.9941336, 0.9088188, -0.91883624, 0.800335],
    (20, 1e5): [
        0.81170905, -0.6281388, -0.91756845, 0.37283972, 0.90881795, 0.0381989, 0.9097134,
        0.59087205, 0.19857131, 0.06317185,
    ],
}  # fmt: skip


@pytest.mark.parametrize(("width", "base"), SINES)
def test_far_out_in_a_row_the_angles_are_torchs(width, base):
    cfg = GPTConfig(n_head=2, n_kv_head=2, n_embd=2 * width, rope_base=base,
                    rope_table_dtype="float32")  # fmt: skip
    _, sin = rotary_tables(cfg, jnp.array([[1999]]), jnp.float32)
    np.testing.assert_allclose(sin[0, 0, 0], SINES[width, base], rtol=0, atol=1e-6)
