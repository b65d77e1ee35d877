"""Forward, loss and gradients equal the original's on the same weights, in both eras."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax.interop.names import to_nanochat
from nanochat_jax.models.attention import rotary_tables
from nanochat_jax.models.gpt import GPT
from nanochat_jax.models.loss import token_nll
from tests.golden.conftest import ERAS, files, load_npz
from tests.golden.models import golden_model
from tests.golden.numbers import absolute, ratio, tensor

MODELS = files("model_*.npz")
CLASSIC, CURRENT = (files(f"{era}/model_*.npz") for era in ERAS)


@partial(jax.jit, static_argnums=0)
def losses(gpt, params, ids, targets):
    """(mean, sum, per token) and the mean's gradient."""

    def mean(params):
        nll = token_nll(gpt.apply({"params": params}, ids)[0], targets)
        return nll.sum() / jnp.maximum((targets >= 0).sum(), 1), nll

    (loss, nll), grads = jax.value_and_grad(mean, has_aux=True)(params)
    return loss, nll.sum(), nll, grads


@pytest.mark.parametrize("path", MODELS)
def test_logits_equal_the_originals(path):
    arrays = load_npz(path)
    absolute(golden_model(path)(arrays["in.ids"]), arrays["out.logits"], "logits")


@pytest.mark.parametrize("path", MODELS)
def test_losses_and_every_gradient_equal_the_originals(path):
    arrays, model = load_npz(path), golden_model(path)
    loss, total, nll, grads = losses(
        model.gpt, model.params, arrays["in.ids"], arrays["in.targets"]
    )
    absolute(loss, arrays["out.loss"], "loss")
    absolute(nll, arrays["out.loss_tokens"], "logits")
    ratio(total, arrays["out.loss_sum"], "loss")
    for key, got in to_nanochat(grads).items():
        tensor(got, arrays[f"grad.{key}"], "grad", key)


@pytest.mark.parametrize("path", MODELS)
def test_ignored_targets_count_nowhere(path):
    arrays, model = load_npz(path), golden_model(path)
    loss, _, nll, _ = losses(model.gpt, model.params, arrays["in.ids"], arrays["in.targets_masked"])
    absolute(loss, arrays["out.loss_masked"], "loss")
    absolute(nll, arrays["out.loss_masked_tokens"], "logits")


@pytest.mark.parametrize("path", MODELS)
def test_rows_longer_than_the_sequence_length_get_the_originals_logits(path):
    arrays = load_npz(path)
    logits = golden_model(path)(arrays["in.long_ids"])
    absolute(logits[:, -16:], arrays["out.long_logits_last16"], "logits")


@pytest.mark.parametrize("path", MODELS)
def test_a_row_of_two_tokens_gets_the_originals_logits(path):
    arrays = load_npz(path)
    absolute(golden_model(path)(arrays["in.ids"][:, :2]), arrays["out.short2_logits"], "logits")


@pytest.mark.slow
@pytest.mark.parametrize("path", MODELS)
def test_what_leaves_every_block_equals_the_originals(path):
    arrays, model = load_npz(path), golden_model(path)
    kept = lambda module, name: name in ("__call__", "hidden")
    _, seen = model.gpt.apply(
        {"params": model.params}, arrays["in.ids"][:1], capture_intermediates=kept
    )
    seen = seen["intermediates"]
    for i in range(model.cfg.n_layer):
        absolute(seen[f"h_{i}"]["__call__"][0][0], arrays[f"act.block{i}"], "logits")
    absolute(seen["hidden"][0][0], arrays["act.final_norm"], "logits")


@pytest.mark.parametrize("path", MODELS)
def test_rotary_tables_equal_the_originals(path):
    arrays, model = load_npz(path), golden_model(path)
    want = arrays["rotary.cos"].reshape(-1, model.cfg.head_dim // 2)
    positions = jnp.arange(want.shape[0])[None]
    cos, sin = rotary_tables(model.cfg, positions, jnp.float32)
    absolute(cos[0, :, 0], want, "probs")
    absolute(sin[0, :, 0], arrays["rotary.sin"].reshape(want.shape), "probs")


@pytest.mark.parametrize("path", CLASSIC)
def test_float32_rotary_tables_are_told_from_rounded_ones(path):
    arrays, model = load_npz(path), golden_model(path, rope_table_dtype="float32")
    absolute(model(arrays["in.ids"][:1]), arrays["out.logits_rotary_f32_row0"], "logits")


@pytest.mark.parametrize("path", CLASSIC)
def test_classic_has_full_windows_and_no_padding(path):
    cfg = golden_model(path).cfg
    assert set(cfg.windows) == {cfg.sequence_len} and cfg.padded_vocab_size == cfg.vocab_size


@pytest.mark.parametrize("path", CURRENT)
def test_windows_and_padding_of_current_are_the_originals(path):
    arrays, cfg = load_npz(path), golden_model(path).cfg
    assert list(cfg.windows) == [int(w) for w in arrays["cfg.window_sizes"][:, 0]]
    assert cfg.padded_vocab_size == int(arrays["cfg.padded_vocab_size"])


@pytest.mark.parametrize("path", CURRENT)  # for classic the original has no such number
def test_bfloat16_compute_is_as_near_to_float32_as_the_originals(path):
    arrays, model = load_npz(path), golden_model(path)
    gpt = GPT(model.cfg, dtype=jnp.bfloat16)
    logits = jax.jit(gpt.apply)({"params": model.params}, arrays["in.ids"])[0]
    apart = np.abs(np.asarray(logits) - arrays["out.logits"]).mean()
    assert apart <= 4 * float(arrays["out.logits_bf16compute_absdiff_max_mean"][1])
