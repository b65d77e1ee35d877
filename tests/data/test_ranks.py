import numpy as np

from nanochat_jax.data.batch import MicroBatch
from nanochat_jax.data.ranks import in_turn, merged, owned


class Counting:
    """A rank whose n-th micro-batch is 100 rank + n."""

    def __init__(self, rank):
        self.rank, self.n = rank, 0

    def pull(self):
        self.n += 1
        row = np.full((1, 2), 100 * self.rank + self.n - 1, np.int32)
        return MicroBatch(row, row)

    def get_state(self):
        return {"n": self.n}

    def set_state(self, state):
        self.n = state["n"]


NOTHING = MicroBatch(np.zeros((1, 2), np.int32), np.zeros((1, 2), np.int32))


def reader(own, ranks=4):
    others = [rank for rank in range(ranks) if rank not in own]
    return iter(in_turn(Counting, ranks, 0, dict.fromkeys(others, NOTHING)))


OWNERS = [0, 0, 1, 1]  # four devices, two of each process


def test_ranks_are_dealt_out_where_they_are_a_multiple_of_the_devices():
    of = lambda ranks, process: owned(ranks, 8, 2, 2, OWNERS, process)
    assert of(4, 0) == {0, 1} and of(4, 1) == {2, 3}
    assert of(8, 1) == {2, 3, 6, 7}
    assert of(1, 1) == {0}
    assert of(2, 1) == {0, 1}  # each process has a device for either
    assert of(3, 1) == {0, 1, 2}


def test_a_micro_batch_over_two_devices_is_read_for_both():
    """Micro-batches of four rows, devices that take two: each spans the devices of one process."""
    assert owned(2, 4, 4, 2, OWNERS, 0) == {0} and owned(2, 4, 4, 2, OWNERS, 1) == {1}
    assert owned(2, 2, 8, 2, OWNERS, 0) == {0, 1}  # and here those of both


def test_processes_together_read_what_one_reads_and_keep_its_position():
    whole, parts = reader(range(4)), [reader({0, 1}), reader({2, 3})]
    for pull in range(10):
        batch, own = next(whole), [next(part) for part in parts]
        np.testing.assert_array_equal(own[pull % 4 // 2].inputs, batch.inputs)
        assert own[1 - pull % 4 // 2] is NOTHING
    assert merged([part.get_state() for part in parts]) == whole.get_state()


def test_a_position_of_all_ranks_is_gone_on_from_by_any_number_of_processes():
    whole = reader(range(4))
    for _ in range(6):
        next(whole)
    one, other = reader({0, 1}), reader({2, 3})
    for part in (one, other):
        part.set_state(whole.get_state())
    assert [next(one).inputs[0, 0] for _ in range(3)] == [0, 0, 2]
    assert [next(other).inputs[0, 0] for _ in range(2)] == [201, 301]


def test_the_state_of_other_loaders_stays_as_it_is():
    assert merged([None, None]) is None
    assert merged([{"a": 1}]) == {"a": 1}
