"""Parameter counts, windows and costs against the original's own methods, depth by depth."""

import jax
import numpy as np
import pytest

from nanochat_jax.config import gpt
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.models.gpt import init_params
from tests.golden.conftest import era_of, files, load_json
from tests.golden.models import config_of

VALUE_BYTES = {"float32": 4, "bfloat16": 2}


def cases(having: str = "") -> list:
    """(config, numbers) of every command line of every file, or of those with a number `having`."""
    found = []
    for param in files("formulas*.json"):
        path = param.values[0]
        if path is None:
            return [pytest.param(None, None, id="absent", marks=param.marks)]
        data = load_json(path)
        for run in [*data["depths"].values(), *data["variants"]]:
            if having and having not in run:
                continue
            flags = " ".join(a for a in run["argv"] if "device" not in a)
            cfg = config_of(path, run["model_config"])
            found.append(pytest.param(cfg, run, id=f"{era_of(path)} {path.stem} {flags}"))
    assert found, f"no run has {having}"
    return found


@pytest.mark.parametrize(("cfg", "run"), cases())
def test_parameters_are_counted_by_group(cfg: GPTConfig, run):
    counts = gpt.param_counts(cfg)
    assert counts["total"] == run["num_params"]
    for group, count in run.get("param_groups", {}).items():
        assert counts[group] == count, group
    if "num_scaling_params" in run:
        assert counts["transformer_matrices"] + counts["lm_head"] == run["num_scaling_params"]
        assert gpt.matmul_params(cfg) == run["num_matmul_params"]
    assert cfg.padded_vocab_size == run.get("padded_vocab_size", cfg.vocab_size)


@pytest.mark.slow
@pytest.mark.parametrize(("cfg", "run"), cases())
def test_the_model_has_as_many_parameters_as_are_counted(cfg: GPTConfig, run, key):
    shapes = jax.eval_shape(lambda: init_params(cfg, key))
    assert sum(int(np.prod(s.shape)) for s in jax.tree.leaves(shapes)) == run["num_params"]


@pytest.mark.parametrize(("cfg", "run"), cases())
def test_a_token_costs_what_the_original_says(cfg: GPTConfig, run):
    assert gpt.flops_per_token(cfg) == run["num_flops_per_token"]


@pytest.mark.parametrize(("cfg", "run"), cases(having="kv_read_bytes_float32"))
def test_a_decode_step_reads_the_cache_bytes_that_the_original_says(cfg: GPTConfig, run):
    for dtype, size in VALUE_BYTES.items():
        for context, read in run[f"kv_read_bytes_{dtype}"].items():
            assert gpt.kv_bytes_read(cfg, int(context), size) == read, context


@pytest.mark.parametrize(("cfg", "run"), cases())
def test_every_layer_sees_the_originals_window(cfg: GPTConfig, run):
    expected = [w for w, _ in run.get("window_sizes", [])] or [cfg.sequence_len] * cfg.n_layer
    assert list(cfg.windows) == expected
