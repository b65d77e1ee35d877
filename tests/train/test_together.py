"""The agreement of several processes, as one of them alone holds it over four devices."""

import types

import pytest

from nanochat_jax import sharding
from nanochat_jax.stopping import Interrupted, Stop
from nanochat_jax.train.together import Together


def test_a_signal_is_agreed_on_a_step_later():
    own = Stop()
    together = Together(own, sharding.make_mesh("4"))
    together.between_steps()
    own.number = 15
    together.between_steps()
    with pytest.raises(Interrupted) as ended:
        together.between_steps()
    assert ended.value.code == 143


def test_what_is_due_is_agreed_once():
    together = Together(types.SimpleNamespace(number=0), sharding.make_mesh("4"))
    asked = [False, True, True, False, False]
    assert [together.between_steps(due) for due in asked] == [False, False, True, False, False]


def test_work_is_done_to_its_end_though_a_signal_came():
    own = Stop()
    own.number = 15
    assert Together(own, sharding.make_mesh("4")).run(lambda: 7) == 7
