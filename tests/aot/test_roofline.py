"""Times of small programs, by arithmetic that can be done by hand."""

import math

import pytest

from nanochat_jax.aot import roofline, work
from nanochat_jax.aot.audit import BACKWARD, FORWARD
from nanochat_jax.aot.cards import card
from nanochat_jax.aot.hlo import parse
from nanochat_jax.aot.rates import Rates
from tests.aot.hlo_texts import module

GPU = card("h100-80gb")
PERFECT = Rates(
    products=1, float8=1, attention=1, attention_backward=1, memory=1, link=1, kernel_us=0,
    exchange_us=0,
)  # fmt: skip


def attention(target: str, config: str) -> str:
    return (
        "  %q = bf16[4,96,2,16]{3,2,1,0} constant({...})\n"
        "  %fmha = (bf16[4,2,96,16]{3,1,2,0}, u8[0]{0}) custom-call(%q, %q, %q), "
        f'custom_call_target="{target}", backend_config={{"cudnn_fmha_backend_config": {{'
        '"intermediate_tensor_shape": {"element_type": "BF16", "dimensions": '
        f'["4", "2", "96", "96"]}}, {config}}}}}'
    )


def only(text: str, name: str) -> work.Work:
    program = parse(text)
    for computation, i in program.launched():
        if i.name == name:
            return work.work(program, program.computations[computation], i)
    raise AssertionError(f"no {name}")


def test_a_product_counts_two_flops_a_multiplication_and_all_its_bytes():
    done = only(module(), "gemm")
    assert done == ("products", 2 * 64 * 32 * 16, 2 * (64 * 32 + 32 * 16 + 64 * 16))


def test_a_loop_counts_every_turn():
    time = roofline.estimate(parse(module()), GPU, PERFECT)
    (gemm,) = [x for x in time.launches if x.instruction.name == "gemm"]
    assert gemm.times == 4
    sent = 32 * 16 * 4 * 7 / 8 / GPU.link
    assert time.seconds == pytest.approx(4 * gemm.seconds + sent)
    assert time.waiting == pytest.approx(sent)


def test_an_exchange_hides_behind_kernels_between_its_start_and_its_end():
    scatter = (
        "  %s = ((f32[32,16]{1,0}), f32[4,16]{1,0}) reduce-scatter-start(%total), "
        "replica_groups=[1,8]<=[8], dimensions={0}\n"
    )
    kernel = "  %k = f32[4096,4096]{1,0} fusion(%total), kind=kLoop, calls=%region_0.0\n"
    end = "  %d = f32[4,16]{1,0} reduce-scatter-done(%s)"
    alone = roofline.estimate(parse(module(entry=kernel + scatter + end)), GPU, PERFECT)
    beside = roofline.estimate(parse(module(entry=scatter + kernel + end)), GPU, PERFECT)
    one = 32 * 16 * 4 * 7 / 8 / GPU.link
    assert alone.waiting == pytest.approx(2 * one)
    assert beside.waiting == pytest.approx(one)
    assert alone.seconds - beside.seconds == pytest.approx(one)


@pytest.mark.parametrize(
    ("config", "pairs"),
    [
        ('"mask_type": "CAUSAL", "sliding_window_length": 0', 96 * 97 / 2),
        ('"mask_type": "CAUSAL", "sliding_window_length": 9', 9 * 10 / 2 + 87 * 9),
        ('"mask_type": "NO_MASK"', 96 * 96),
    ],
)
def test_attention_counts_the_scores_that_its_mask_leaves(config, pairs):
    forward = only(module(entry=attention(FORWARD, config)), "fmha")
    backward = only(module(entry=attention(BACKWARD, config)), "fmha")
    assert forward.flops == 2 * 2 * 4 * 2 * 16 * pairs
    assert backward.flops == 2.5 * forward.flops
    assert (forward.unit, backward.unit) == ("attention", "attention_backward")


def test_of_a_slice_and_of_an_update_in_place_only_the_part_is_moved():
    text = module().replace(
        "%condition",
        """%sliced (a: f32[64,256], i: s32[]) -> f32[1,256] {
  %a = f32[64,256]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %s = f32[1,256]{1,0} dynamic-slice(%a, %i, %i), dynamic_slice_sizes={1,256}
}

%updated (a: f32[64,256], u: f32[1,256], i: s32[]) -> f32[64,256] {
  %a = f32[64,256]{1,0} parameter(0)
  %u = f32[1,256]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %d = f32[64,256]{1,0} dynamic-update-slice(%a, %u, %i, %i)
}

%condition""",
        1,
    )
    whole = "  %w = f32[64,256]{1,0} constant({...})\n"
    read = "  %r = f32[1,256]{1,0} fusion(%w, %zero), kind=kLoop, calls=%sliced\n"
    write = "  %v = f32[64,256]{1,0} fusion(%w, %r, %zero), kind=kLoop, calls=%updated"
    text = text.replace("  %total =", f"{whole}{read}{write}\n  %total =", 1)
    assert only(text, "r").nbytes == pytest.approx(2 * 1024, abs=8)
    assert only(text, "v").nbytes == pytest.approx(2 * 1024, abs=8)


def test_a_loop_that_depends_on_data_runs_as_often_as_is_said():
    text = module().replace('"known_trip_count":{"n":"4"},', "")
    once, thrice = (roofline.estimate(parse(text), GPU, PERFECT, trips=n) for n in (1, 3))
    assert math.isclose(thrice.seconds - thrice.waiting, 3 * (once.seconds - once.waiting))


def test_between_nodes_rings_share_the_adapters_and_all_to_all_does_not():
    timeline = roofline._Timeline(parse(module()), GPU, Rates(), 1)
    inside = GPU.link * Rates().link
    assert (
        timeline._link("all-gather", range(8)) == timeline._link("all-to-all", range(8)) == inside
    )
    adapter = Rates().between_nodes * Rates().network
    assert timeline._link("all-gather", range(16)) == min(inside, 8 * adapter)
    assert timeline._link("all-to-all", range(16)) == adapter
    # One card of each of eight nodes: eight devices, and none beside another.
    assert timeline._link("all-gather", range(0, 64, 8)) == adapter
    assert timeline._link("all-gather", range(0, 64, 4)) == 2 * adapter


def test_the_same_kernel_of_every_layer_is_one_kind():
    lines = "\n".join(
        f"  %g.{n} = bf16[64,16]{{1,0}} fusion(%x, %w), kind=kCustom, calls=%fused, "
        f'metadata={{op_name="jit(step)/h_{n}/mlp"}}'
        for n in range(1, 4)
    )
    largest = roofline.estimate(parse(module(body=lines)), GPU).largest(1)[0]
    assert (largest.name, largest.launches) == ("mlp bf16[64, 16]", 16)


def test_kernels_of_a_pass_are_those_of_the_loop_alone():
    more = "  %act = bf16[64,16]{1,0} fusion(%x, %w), kind=kLoop, calls=%fused"
    once = "  %last = bf16[64,16]{1,0} fusion(%p, %p), kind=kLoop, calls=%fused"
    assert work.kernels_a_pass(parse(module(entry=once))) == 1
    assert work.kernels_a_pass(parse(module(more, once))) == 2
