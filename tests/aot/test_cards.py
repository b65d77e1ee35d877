"""The table of cards agrees with itself and with the peaks that MFU is counted by."""

import math

import pytest

from nanochat_jax.aot.cards import CAPABILITIES, card, description, names
from nanochat_jax.train.peaks import peaks


@pytest.mark.parametrize("name", names())
def test_a_card_has_the_peaks_by_which_mfu_is_counted(name):
    flops, bandwidth = peaks(card(name).name)
    if math.isfinite(flops):
        assert card(name).flops == flops
        # The original knows one A100; that of 40 GB has slower memory.
        slower = 0.75 if name == "a100-40gb" else 0.98
        assert slower * bandwidth <= card(name).bandwidth <= 1.02 * bandwidth


@pytest.mark.parametrize("name", names())
def test_a_card_can_be_described_to_xla(name):
    gpu = card(name)
    text = description(gpu)
    assert gpu.capability in CAPABILITIES and f"core_count: {gpu.sms}\n" in text
    assert text.count("{") == text.count("}")
    assert name.endswith(f"-{gpu.gib}gb") and gpu.memory < gpu.gib * 2**30


def test_an_unknown_card_names_the_nearest():
    with pytest.raises(ValueError, match="h100-80gb"):
        card("h100")
