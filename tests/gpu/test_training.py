"""Training steps of shipped configs, compiled for their cards: they fit, and hold no surprise."""

import pathlib
import tomllib

import pytest

from nanochat_jax import plan
from nanochat_jax.aot import audit, programs, target
from nanochat_jax.aot.budget import Budget, faults
from nanochat_jax.aot.cards import card
from nanochat_jax.aot.command import figures

CASES = tomllib.loads(pathlib.Path(__file__).with_name("budgets.toml").read_text())

pytestmark = pytest.mark.timeout(900)  # the largest takes a minute of a free core


@pytest.mark.parametrize("name", CASES)
def test_the_step_keeps_its_budget(name):
    case = dict(CASES[name])
    argv = [f"--config={case.pop('config')}", *case.pop("flags", [])]
    config, cfg = programs.settled(case.pop("stage", "base"), argv)
    gpu = card(case.pop("card"))
    mesh = target.mesh(gpu, case.pop("mesh", "1"))
    config, program = programs.fitted(config, cfg, gpu, mesh)
    print(f"\n{name}: remat {config.remat}, {described(program)}")
    speed = figures(program, config, cfg, gpu, mesh.size)
    print("{step_ms:.0f} ms, {tokens_per_s:,.0f} tokens/s, MFU {mfu:.1f} %".format_map(speed))
    found = faults(program, Budget(**case), config, cfg, gpu)
    assert not found, "\n".join(found)


def test_what_is_planned_for_two_hours_of_a_free_t4_fits_and_is_no_faster_than_planned_for(
    tmp_path,
):
    gpu = card("t4-16gb")
    machine = plan.Machine(gpu.name, memory=gpu.pool)
    made = plan.plan(machine, 2)
    (file := tmp_path / "plan.toml").write_text(plan.toml(machine, 2, made))
    config, cfg = programs.settled("base", [f"--config={file}"])
    config, program = programs.fitted(config, cfg, gpu, target.mesh(gpu, "1"))
    speed = figures(program, config, cfg, gpu, 1)
    print("\n{peak_gb:.1f} GB, {tokens_per_s:,.0f} tokens/s, MFU {mfu:.1f} %".format_map(speed))
    assert (config.dtype, config.attention, config.remat) == ("float32", "blocks", "none")
    assert 100 * plan.REACHED < speed["mfu"] < 70 and program.tokens == made.batch


def described(program: programs.Program) -> str:
    """What the budget is about, for whoever tightens it."""
    module = program.module
    sent = audit.sent(module) / 1e9
    inside = sum(c.in_loop for c in audit.collectives(module))
    return (
        f"{program.peak / 1e9:.2f} GB, sends {sent:.2f} GB, {inside} exchanges in loops, "
        f"{len(audit.rematerialised(module))} computed twice, "
        f"{audit.float8_products(module)} float8 products, compiled in {program.seconds:.0f} s"
    )
