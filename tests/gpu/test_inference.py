"""Decoding, CORE and bits per byte, compiled for eight cards: what each must not hold or send.

With two layers: what is looked for stands in every one of them.
"""

import dataclasses

import pytest

from nanochat_jax.aot import audit, inference, programs, target, work
from nanochat_jax.aot.cards import card
from nanochat_jax.evals.core.batches import Kind, shape_of
from nanochat_jax.evals.placing import ACCELERATOR_TOKENS
from nanochat_jax.models.loss import tile_rows

GPU = card("h100-80gb")
LAYERS = 2


@pytest.fixture(scope="module")
def cfg():
    return dataclasses.replace(
        programs.settled("base", ["--config=configs/d20.toml"])[1], n_layer=LAYERS
    )


@pytest.fixture(scope="module")
def mesh():
    return target.mesh(GPU, "8")


@pytest.mark.parametrize("slots", [1, 64])
def test_decoding_runs_its_own_kernels(cfg, slots):
    program = inference.decode(cfg, GPU, target.mesh(GPU, "1"), slots, length=1024, steps=8)
    kernels = [i for _, i in program.module.launched() if "triton" in i.target]
    # Attention in each layer, the draw; and no copy of the cache beside it.
    assert len(kernels) == LAYERS + 1
    weights, row = 2 * 560_988_160, 2 * 2 * cfg.n_embd * 1024
    assert program.peak < weights + 1.5 * LAYERS * slots * row + 0.3e9


@pytest.mark.parametrize(("slots", "kernels"), [(1, 244), (8, 238), (64, 218)])
def test_a_step_of_d20_launches_no_more_kernels_than_it_did(cfg, slots, kernels):
    d20 = dataclasses.replace(cfg, n_layer=20)
    program = inference.decode(d20, GPU, target.mesh(GPU, "1"), slots, length=1024, steps=8)
    found = work.kernels_a_pass(program.module)
    print(f"\n{slots} rows: {found} kernels a step")
    assert found <= kernels


def test_rows_on_eight_cards_exchange_nothing_and_adjusted_logits_cost_their_counts(cfg, mesh):
    """Of eight rows on each: a few kernels a step, and some 11 bytes a row and token id."""
    settings = cfg, GPU, mesh, 64, 1024, 8
    both = [inference.decode(*settings, adjusts=adjusts) for adjusts in (False, True)]
    assert [audit.collectives(program.module) for program in both] == [[], []]
    plain, adjusting = both
    kernels = [work.kernels_a_pass(program.module) for program in both]
    print(f"\n{kernels} kernels a step, {adjusting.peak - plain.peak} bytes more")
    assert kernels[1] - kernels[0] <= 12
    assert adjusting.peak - plain.peak < 8 * 65536 * 12


@pytest.mark.parametrize("kind", [Kind(2048, 0, 0, False), Kind(1024, 128, 4, True)])
def test_core_keeps_scores_and_logits_small_and_exchanges_its_results_alone(cfg, mesh, kind):
    shape = shape_of(kind, ACCELERATOR_TOKENS)
    program = inference.core(cfg, mesh, shape)
    assert audit.attention_calls(program.module) == ((LAYERS, 0) if not shape.ends else (0, 0))
    assert audit.squares(program.module, shape.long) == []
    assert audit.wide_logits(program.module, cfg.vocab_size, max(shape.scored, cfg.n_embd)) == []
    assert audit.sent(program.module) <= 8 * 8 * shape.scored


def test_bits_per_byte_never_holds_the_logits(cfg, mesh):
    program = inference.bits_per_byte(cfg, mesh, rows=32)
    tile = tile_rows(32 * cfg.sequence_len, cfg.vocab_size)
    assert audit.wide_logits(program.module, cfg.vocab_size, tile) == []
    assert audit.squares(program.module, cfg.sequence_len) == []
    assert audit.attention_calls(program.module) == (LAYERS, 0)
    assert audit.sent(program.module) < 1000
    assert program.peak < 5e9
