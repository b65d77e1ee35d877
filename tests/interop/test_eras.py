"""Every era of nanochat is recognized by its keys, and what no release had is refused by name."""

import dataclasses

import numpy as np
import pytest

from nanochat_jax.interop import eras
from tests.interop.nanochat_files import SHAPE, meta_of, state_of


def detect(state, meta):
    return eras.detect({key: value.shape for key, value in state.items()}, meta)


@pytest.mark.parametrize("era", eras.ERAS)
def test_an_era_is_recognized_by_its_keys(era):
    hint = {"eval_tokens": 41_943_040} if era == "C20" else {"eval_tokens": 10_485_760}
    found = detect(state_of(era), meta_of(era, **hint))
    assert found.name == era
    for name, value in eras.ERAS[era].constants.items():
        assert getattr(found.config, name) == value, name


CONSTANTS = {  # rope base, query scale, softcap, windows of a sequence of 2048, gate scale
    "A": (1e4, 1.0, 15.0, (2048,) * 3, None),
    "B": (1e4, 1.0, 15.0, (1024, 1024, 2048), None),
    "C": (1e4, 1.0, 15.0, (1024, 1024, 2048), 2.0),
    "C20": (1e4, 1.0, 20.0, (1024, 1024, 2048), 2.0),
    "D": (1e5, 1.15, 15.0, (768, 768, 2048), 3.0),
    "E": (1e5, 1.2, 15.0, (512, 512, 2048), 3.0),
}


@pytest.mark.parametrize("era", CONSTANTS)
def test_the_constants_are_those_of_its_time(era):
    meta = meta_of(era, eval_tokens=41_943_040 if era == "C20" else 0)
    config = dataclasses.replace(detect(state_of(era), meta).config, sequence_len=2048)
    base, scale, cap, windows, gate = CONSTANTS[era]
    assert (config.rope_base, config.qk_scale, config.logit_softcap) == (base, scale, cap)
    assert config.windows == windows
    assert gate is None or (config.value_embeds and config.ve_gate_scale == gate)


def test_softcap_15_or_20_stays_open_where_nothing_dates_the_run():
    found = detect(state_of("C"), meta_of("C"))
    assert [name for name, _ in found.others] == ["softcap 20"]
    assert found.others[0][1].logit_softcap == 20.0


def test_padding_of_december_2025_is_seen():
    state = state_of("A", pad_vocab_to=64)
    found = detect(state, meta_of("A"))
    assert found.config.padded_vocab_size == 320 == len(state["lm_head.weight"])
    assert any("padded" in why for why in found.why)


def test_a_pattern_that_january_forgot_is_given_back():
    meta = meta_of("C")
    del meta["model_config"]["window_pattern"], meta["user_config"]["depth"]
    found = detect(state_of("C"), meta)
    assert found.config.window_pattern == "SSSL"
    assert "window pattern L" in [name for name, _ in found.others]
    base_run = meta | {"user_config": {"depth": 3}}
    assert detect(state_of("B"), base_run).config.window_pattern == "L"


FOREIGN = {
    "bigram_embed.embed.weight": "bigram",
    "bigram_lambdas": "bigram",
    "v0_lambdas": "research branch",
    "value_embed_A.weight": "research branch",
    "transformer.h.0.mlp.router.weight": "mixture of experts",
    "transformer.h.1.mlp.w_up": "mixture of experts",
    "transformer.h.0.attn.bias": "unknown transformer.h.0.attn.bias",
}


@pytest.mark.parametrize("key", FOREIGN)
def test_keys_of_others_are_refused_by_name(key):
    state = state_of("E") | {key: np.zeros((2, 2))}
    with pytest.raises(ValueError, match=FOREIGN[key]):
        detect(state, meta_of("E"))


def test_a_model_of_another_project_is_refused():
    with pytest.raises(ValueError, match="not a nanochat model"):
        eras.detect({"model.embed_tokens.weight": (3, 4)}, meta_of("A"))


@pytest.mark.parametrize("name", ["vocab_size", "n_embd", "n_layer", "n_kv_head"])
def test_the_meta_of_another_model_is_seen(name):
    meta = meta_of("A")
    meta["model_config"][name] = {"vocab_size": 400, "n_embd": 96, "n_layer": 4, "n_kv_head": 1}[
        name
    ]
    with pytest.raises(ValueError, match="meta file|keys are not"):
        detect(state_of("A"), meta)


@pytest.mark.parametrize("name", SHAPE)
def test_a_meta_without_a_size_is_named(name):
    meta = meta_of("A")
    del meta["model_config"][name]
    with pytest.raises(ValueError, match=name):
        detect(state_of("A"), meta)


def test_the_prefix_of_compiled_modules_is_taken_off():
    state = {f"_orig_mod.{key}": value for key, value in state_of("E").items()}
    assert eras.stripped(state).keys() == state_of("E").keys()
