from nanochat_jax.hosts.watch import DEAD_S, Pulse


def test_a_process_is_silent_when_it_says_nothing_new_for_long_enough():
    pulse = Pulse(2, 100.0)
    assert pulse.silent({0: "1", 1: "1"}, 101.0) is None
    assert pulse.silent({0: "2", 1: "1"}, 100.0 + DEAD_S) is None
    assert pulse.silent({0: "3", 1: "1"}, 101.0 + DEAD_S + 0.1) == 1


def test_a_process_that_never_spoke_is_silent_too():
    assert Pulse(3, 0.0).silent({0: "1", 2: "1"}, DEAD_S + 0.1) == 1
