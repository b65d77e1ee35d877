"""Training steps of shipped configs, compiled for their cards: they fit, and hold no surprise."""

import pathlib
import tomllib

import pytest

from nanochat_jax.aot import audit, programs, target
from nanochat_jax.aot.budget import Budget, faults
from nanochat_jax.aot.cards import card

CASES = tomllib.loads(pathlib.Path(__file__).with_name("budgets.toml").read_text())


@pytest.mark.parametrize("name", CASES)
def test_the_step_keeps_its_budget(name):
    case = dict(CASES[name])
    argv = [f"--config={case.pop('config')}", *case.pop("flags", [])]
    config, cfg = programs.settled(case.pop("stage", "base"), argv)
    gpu = card(case.pop("card"))
    mesh = target.mesh(gpu, case.pop("mesh", "1"))
    config = programs.for_card(config)
    program = programs.step(config, cfg, mesh)
    found = faults(program, Budget(**case), config, cfg, gpu)
    sent = sum(c.sent for c in audit.collectives(program.module)) / 1e9
    twice = len(audit.rematerialised(program.module))
    print(
        f"\n{name}: {program.peak / 1e9:.2f} GB, sends {sent:.2f} GB, {twice} XLA remat", end=", "
    )
    print(f"{audit.float8_products(program.module)} float8, {program.seconds:.0f} s")
    assert not found, "\n".join(found)
