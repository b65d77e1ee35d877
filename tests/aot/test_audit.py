"""Each fault that the gate looks for is seen when it is there, and not when it is not."""

import dataclasses

import pytest

from nanochat_jax.aot import audit
from nanochat_jax.aot.budget import Budget, faults
from nanochat_jax.aot.cards import card
from nanochat_jax.aot.hlo import parse
from nanochat_jax.aot.programs import Program, settled
from tests.aot.hlo_texts import module

GPU = card("rtx4060-8gb")
CONFIG, CFG = settled("base", ["--max-seq-len=96", "--device-batch-size=512"])
CFG = dataclasses.replace(CFG, n_layer=1)
TILE = 4096  # tokens of a tile of the loss at this vocabulary

ATTENTION = "\n".join(
    f"  %fmha.{i} = (bf16[4,2,96,16]{{3,2,1,0}}, u8[0]{{0}}) custom-call(%x), "
    f'custom_call_target="{target}"'
    for i, target in enumerate((audit.FORWARD, audit.BACKWARD))
)


def found(body: str = ATTENTION, entry: str = "", peak: int = 10**9, **budget) -> list[str]:
    program = Program(module(body, entry), peak, 0.0, 0)
    kept = Budget(**{"peak_gb": 2.0, "sent_gb": 0.1} | budget)
    return faults(program, kept, CONFIG, CFG, GPU)


def test_a_step_that_keeps_its_budget_has_no_faults():
    assert found() == []


@pytest.mark.parametrize(
    ("fault", "step"),
    {
        "budget 2.0 GB": dict(peak=3 * 10**9),
        "the pool holds 7": dict(peak=8 * 10**9, peak_gb=9.0),
        "sends 0.00 GB": dict(sent_gb=0.0),
        "XLA computes twice": dict(
            entry="  %gemm.remat = bf16[64,16]{1,0} fusion(%p, %p), kind=kCustom, calls=%fused"
        ),
        "scores of all": dict(
            entry="  %scores = bf16[2,3,96,96]{3,2,1,0} fusion(%p), kind=kLoop, calls=%fused"
        ),
        "float32 logits": dict(
            entry=f"  %l = f32[{TILE + 1},65536]{{1,0}} fusion(%p), kind=kLoop, calls=%fused"
        ),
        "attention calls (0, 0)": dict(body=""),
        "attention calls (1, 1)": dict(layers=2),
        "exchanges in a loop": dict(
            body=ATTENTION + "\n  %ag = f32[256,16]{1,0} all-gather(%grad), dimensions={0}, "
            "replica_groups=[1,8]<=[8]"
        ),
        "0 float8 products": dict(float8=1),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_told(fault, step, monkeypatch):
    if layers := step.pop("layers", 0):
        monkeypatch.setattr(f"{__name__}.CFG", dataclasses.replace(CFG, n_layer=layers))
    told = found(**step)
    assert len(told) == 1 and fault in told[0], told


def test_logits_of_a_tile_are_no_fault():
    assert not found(entry=f"  %l = f32[{TILE},65536]{{1,0}} fusion(%p), kind=kLoop, calls=%fused")


def test_what_lies_inside_of_a_kernel_is_in_nobodys_memory():
    text = module(fused="  %inside = f32[96,96]{1,0} broadcast(%p0)")
    assert not audit.squares(parse(text), 96)
    assert audit.squares(parse(module(entry="  %out = f32[96,96]{1,0} copy(%p)")), 96)


def test_collectives_count_what_each_device_sends_once():
    (scatter,) = audit.collectives(parse(module()))
    whole = 32 * 16 * 4
    assert (scatter.op, scatter.sent) == ("reduce-scatter", whole * 7 // 8)
    gather = "  %ag = f32[256,16]{1,0} all-gather(%p), dimensions={0}, replica_groups=[1,8]<=[8]"
    assert audit.collectives(parse(module(entry=gather)))[0].sent == 8 * whole * 7 // 8
    reduce = "  %ar = f32[32,16]{1,0} all-reduce(%p), replica_groups={{0,1},{2,3}}"
    assert audit.collectives(parse(module(entry=reduce)))[0].sent == whole


@pytest.mark.parametrize(
    ("groups", "first"),
    [
        ("replica_groups=mesh['data'=4,'fsdp'=2] {'data'}", (0, 2, 4, 6)),
        ("replica_groups=mesh['data'=4,'fsdp'=2] {'data','fsdp'}", tuple(range(8))),
        ("replica_groups=mesh['a'=4,'b'=1], device_ids=([2,2]T(1,0)) {'a'}", (0, 2, 1, 3)),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", (0, 2, 4, 6)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}", (0, 1, 2, 3)),
        ("source_target_pairs={{0,1},{1,2},{2,0}}", (0, 1, 2)),
    ],
)
def test_groups_are_read_in_each_way_of_writing_them(groups, first):
    assert audit.first_group(f", channel_id=1, {groups}") == first


def test_a_group_written_in_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="no group"):
        audit.first_group(", replica_groups=mesh['a'=4] {'a':(1)2}")


def test_products_in_eight_bits_are_counted_by_both_operands():
    f8 = "  %a = f8e4m3fn[64,32]{1,0} constant({...})\n  %b = f8e5m2[32,16]{1,0} constant({...})\n"
    both = (
        f8
        + '  %y = bf16[64,16]{1,0} custom-call(%a, %b), custom_call_target="__cublas$lt$matmul$f8"'
    )
    assert audit.float8_products(parse(module(body=both))) == 1
    assert audit.float8_products(parse(module(body=f8))) == 0


def test_an_exchange_in_a_loop_is_sent_in_every_turn():
    gather = "  %ag = f32[256,16]{1,0} all-gather(%grad), dimensions={0}, replica_groups=[1,8]<=[8]"
    once, often = (
        audit.sent(parse(module(**{where: gather.replace("%grad", array)})))
        for where, array in (("entry", "%p"), ("body", "%grad"))
    )
    scatter = 32 * 16 * 4 * 7 // 8
    assert (once - scatter, often - scatter) == (8 * scatter, 4 * 8 * scatter)


def test_an_exchange_that_is_fused_into_a_kernel_is_seen():
    reduce = "  %ar = f32[] all-reduce(%p0), replica_groups=[1,8]<=[8], to_apply=%region_0.0"
    (fused, _) = audit.collectives(parse(module(fused=reduce)))
    assert (fused.op, fused.in_loop) == ("all-reduce", True)
