"""A training process that is asked to stop ends in time, with what it has learned, and goes on."""

import signal

import pytest

from tests.kills import stops
from tests.kills.__main__ import Bench


@pytest.mark.slow
def test_a_process_stops_in_time_and_its_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(stops.world, "chain", lambda recipe: [])  # base begins with nothing
    found = stops.stopped(Bench(tmp_path), "evaluation", signal.SIGINT)
    assert found[1:] == (130, 3, "") and found.seconds < stops.LIMIT_S
