"""Bits per byte equal the original's, ignored targets and byteless tokens included."""

import math

import pytest

from nanochat_jax.data.batch import MicroBatch
from nanochat_jax.evals.bpb import bits_per_byte
from tests.golden.conftest import files, load_json, load_npz
from tests.golden.models import golden_model
from tests.golden.numbers import ratio


@pytest.mark.slow
@pytest.mark.parametrize("path", files("bpb_*.json"))
def test_bits_per_byte_are_the_same(path):
    arrays = load_npz(path.with_suffix(".npz"))
    for case in load_json(path):
        model = golden_model(path.parent / f"{case['model']}")
        name = case["case"]
        rows = zip(arrays[f"{name}.inputs"], arrays[f"{name}.targets"], strict=True)
        batches = (MicroBatch(inputs, targets) for inputs, targets in rows)
        got = bits_per_byte(model, batches, arrays[case["token_bytes"]], case["steps"])
        want = math.inf if case["bpb"] == "inf" else case["bpb"]
        ratio(got, want, "bpb", name)
