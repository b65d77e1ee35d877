import pytest

from nanochat_jax.hosts import group, start
from nanochat_jax.hosts.launchers import Place


def test_alone_everything_answers_at_once():
    assert (group.count(), group.index(), group.chief()) == (1, 0, True)
    assert group.first(lambda: 3) == 3
    assert group.gathered("x") == ["x"]
    assert group.divided([1, 2, 3], lambda some: [2 * x for x in some]) == [2, 4, 6]
    group.wait()
    with group.chief_first():
        pass


def test_each_process_gets_the_things_of_its_devices(monkeypatch):
    """Eight things over two processes with two devices: each device the next one in turn."""
    monkeypatch.setattr(group, "count", lambda: 2)
    monkeypatch.setattr(group, "gathered", lambda own: [own])
    of = {}
    for process in range(2):
        monkeypatch.setattr(group, "index", lambda process=process: process)
        of[process] = group.divided(range(8), list, parts=2)
    assert of == {0: [0, 1, 4, 5], 1: [2, 3, 6, 7]}


def test_a_pod_without_the_kubernetes_package_is_told_what_to_type(monkeypatch):
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--process-id .JOB_COMPLETION_INDEX"):
        start._initialize(Place("k8s"))
