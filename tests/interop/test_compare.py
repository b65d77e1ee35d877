"""`convert compare`: equal models are equal in every format, others differ by name."""

import shutil

import pytest

from nanochat_jax import interop
from nanochat_jax.config.convert import Compare, Export
from tests.interop.nanochat_files import folder_of, meta_of, several_steps, state_of, take


def test_compare_finds_equal_models_equal_in_every_format(theirs, base, tmp_path):
    take(theirs)
    interop.export_model(Export(dir=str(tmp_path / "hf"), source="base", format="huggingface"))
    for other in (theirs, tmp_path / "hf"):
        text = "\n".join(interop.compare(Compare(a="base", b=str(other), prompt="the cat")))
        assert "20 of 20 equal to the bit" in text
        assert "logits: max 0.000e+00" in text


def test_compare_names_the_parameter_and_the_layer_that_differ(theirs, base, tmp_path):
    take(theirs)
    state = state_of("A")
    state["transformer.h.1.mlp.c_fc.weight"] += 0.01
    other = folder_of(tmp_path / "other", state, meta_of("A"))
    ids = tmp_path / "ids.json"
    ids.write_text("[291, 5, 6, 7]")
    lines = interop.compare(Compare(a="base", b=str(other), ids=str(ids)))
    assert any("h_1/mlp/c_fc/kernel: max 1.0" in line for line in lines)
    layers = {line.split(":")[0].strip(): line for line in lines if line.startswith("  layer")}
    assert "max 0.000e+00" in layers["layer 0"] and "max 0.000e+00" not in layers["layer 1"]


def test_compare_takes_a_models_file_and_a_folder_that_names_no_stage(theirs, base, tmp_path):
    take(theirs)
    several_steps(theirs)
    flat = tmp_path / "published"
    shutil.copytree(theirs / "base_checkpoints/d3", flat)
    with pytest.raises(ValueError, match="name the file"):
        interop.compare(Compare(a="base", b=str(flat), prompt="the cat"))
    text = interop.compare(Compare(a="base", b=str(flat / "model_000009.pt"), prompt="the cat"))
    assert "parameters: 20 of 20 equal to the bit" in text


def test_compare_says_which_file_of_ids_is_missing(theirs, base, tmp_path):
    take(theirs)
    with pytest.raises(FileNotFoundError, match="--ids"):
        interop.compare(Compare(a="base", b=str(theirs), ids=str(tmp_path / "none.json")))


def test_compare_refuses_ids_outside_the_vocabulary(theirs, base, tmp_path):
    take(theirs)
    ids = tmp_path / "ids.txt"
    ids.write_text("1 2 300")
    with pytest.raises(ValueError, match="0 to 299"):
        interop.compare(Compare(a="base", b=str(theirs), ids=str(ids)))
