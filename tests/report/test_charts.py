"""Curves stay in their frame, whatever the numbers."""

import html
import json
import math
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_jax.report.charts import BUCKETS, HEIGHT, WIDTH, Series, chart, number, ticks

numbers = st.floats(-1e12, 1e12, allow_nan=False) | st.sampled_from([math.nan, math.inf])


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, max_size=600), st.booleans(), st.booleans())
def test_every_point_lies_in_the_frame_and_values_that_are_none_are_left_out(ys, robust, zero):
    drawn = chart("t", [Series("s", list(enumerate(ys)))], robust=robust, zero=zero)
    finite = [y for y in ys if math.isfinite(y)]
    assert bool(drawn) == (len(finite) > 1)
    for points in re.findall(r'points="([^"]*)"', drawn):
        for pair in points.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT
    assert "nan" not in drawn and "inf" not in drawn


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_even_and_within(low, width):
    high = low + width
    found = ticks(low, high) if high > low else [low]
    assert 1 <= len(found) <= 9
    slack = 1e-6 * max(abs(low), abs(high), width)
    assert all(low - slack <= t <= high + slack for t in found)


def test_a_long_curve_is_drawn_through_means_with_the_extremes_around():
    noisy = [(i, (-1.0) ** i) for i in range(10_000)]
    drawn = chart("t", [Series("s", noisy)])
    (line,) = re.findall(r'<polyline points="([^"]*)"', drawn)
    (band,) = re.findall(r'<polygon points="([^"]*)"', drawn)
    assert len(line.split()) <= BUCKETS and len(band.split()) == 2 * len(line.split())
    height = lambda points: float(np.ptp([float(pair.split(",")[1]) for pair in points.split()]))
    assert height(line) < 1 and height(band) > HEIGHT / 2


def test_several_curves_are_told_apart_by_name():
    drawn = chart("t", [Series(n, [(0, 1), (1, 2)]) for n in ("pass@1", "pass@8")])
    assert drawn.count("<li class") == 2 and "pass@8 from 1 to 2" in drawn


def test_the_pointer_s_data_are_json():
    drawn = chart("t", [Series('"<', [(0, 1.5), (1000, 2)])])
    data = json.loads(html.unescape(re.search('data-curves="([^"]*)"', drawn)[1]))
    assert data[0][0] == '"<' and data[0][1][1][2:] == ["1,000", "2"]


def test_numbers_are_short():
    told = {1234567: "1.23M", 1000: "1k", 0.28615: "0.286", 0: "0", 3.14e-5: "3.1e-05", 12: "12"}
    assert {value: number(value) for value in told} == told
