"""Groups wait for their like: every one goes once, in a shape that holds it, and shapes are few."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_jax.evals.core import batches, shapes
from nanochat_jax.evals.core.batches import RowGroup
from nanochat_jax.evals.core.prompts import Example, Row


def row(length, scored, first=0):
    return Row(np.arange(first, first + length, dtype=np.int32), length - scored, length)


@st.composite
def groups(draw):
    """Whole rows and shared ones, of lengths as questions have them."""
    found = []
    for key in range(draw(st.integers(1, 60))):
        long, scored = draw(st.integers(2, 900)), draw(st.integers(0, 40))
        scored = min(scored, long - 1)
        if draw(st.booleans()):
            found.append(RowGroup(key, 0, (row(long, scored),)))
        else:
            ends = draw(st.lists(st.integers(1, 200), min_size=2, max_size=11))
            rows = tuple(row(long + n, min(n, scored + 1)) for n in ends)
            found.append(RowGroup(key, 0, rows, long - 1))
    return found


def occupied(batch, share):
    return len(share), sum(len(j.rows) for j in share), sum(j.scored for j in share)


@settings(max_examples=40, deadline=None)
@given(groups(), st.integers(1, 4), st.sampled_from([64, 1024, 4096]), st.integers(1, 5))
def test_every_job_goes_once_in_a_shape_that_holds_it(some, devices, tokens, windows):
    parts = [some[k::windows] for k in range(windows)]
    done = []
    for batch in batches.batches(parts, tokens, devices):
        shape = batch.shape
        assert len(batch.shares) == devices and batch.shares[0]
        for share in batch.shares:
            rows, options, scored = occupied(batch, share)
            assert rows <= shape.rows and scored <= shape.scored
            assert all(j.long <= shape.long and j.end <= shape.ends for j in share)
            assert options <= shape.options or not shape.ends
            assert all(bool(j.shared) == bool(shape.ends) for j in share)
            done += [j.key for j in share]
    assert sorted(done) == sorted(j.key for j in some)


@settings(max_examples=15, deadline=None)
@given(groups(), st.integers(1, 4), st.integers(2, 5))
def test_few_planned_shapes_hold_the_sample_and_coarse_ones_the_rest(some, devices, most):
    planned = shapes.plan([(group, 1.0) for group in some[::2]], most)
    assert len(planned) <= most
    kind = shapes.chooser(planned)
    assert all(kind(group) in planned for group in some[::2])
    done = []
    for batch in batches.batches([some], 4096, devices, kind, planned):
        for share in batch.shares:
            assert all(j.long <= batch.shape.long and j.end <= batch.shape.ends for j in share)
            done += [j.key for j in share]
    assert sorted(done) == sorted(j.key for j in some)


def test_a_lone_row_may_share_the_shapes_of_questions_with_options():
    example = Example((Row(np.arange(200), 190, 200),), 0)
    (whole,) = batches.groups_of("q", example, 128)
    (split,) = batches.groups_of("q", example, 128, lone=True)
    assert (whole.shared, split.shared, split.end, split.scored) == (0, 189, 11, 10)
    assert shapes.groups("q", Example((Row(np.arange(90), 80, 90),), 0))[0].shared == 0


def test_all_but_the_last_batches_of_a_shape_are_full():
    some = [RowGroup(i, 0, (row(100 + i % 20, 3),)) for i in range(100)]
    found = list(batches.batches([some[:37], some[37:]], 1024))
    assert len({b.shape for b in found}) == 1
    assert [len(b.shares[0]) for b in found] == [8] * 12 + [4]


def test_leftovers_go_in_shapes_that_were_there_before():
    big = [RowGroup(i, 0, (row(200, 3),)) for i in range(8)]
    small = [RowGroup(100 + i, 0, (row(100, 3),)) for i in range(3)]
    found = list(batches.batches([big, small], 1024))
    assert len({b.shape for b in found}) == 1


def test_options_share_what_they_begin_with_where_there_is_enough_of_it():
    rows = (Row(np.array([9] * 50 + [1, 2]), 50, 52), Row(np.array([9] * 50 + [3]), 50, 51))
    (group,) = batches.groups_of("q", Example(rows, 0), least_shared=32)
    assert (group.shared, group.end, group.scored) == (49, 3, 3)
    assert [j.shared for j in batches.groups_of("q", Example(rows, 0), least_shared=64)] == [0, 0]


def test_few_shapes_hold_questions_of_every_length():
    some = [RowGroup(i, 0, (row(20 + 7 * i, 1 + i % 9),)) for i in range(280)]
    assert len({b.shape for b in batches.batches([some], 4096)}) <= 12
