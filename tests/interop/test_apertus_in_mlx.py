"""Our Apertus folders in Apple's MLX, whose programs run on Linux processors too."""

import numpy as np
import pytest

from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.interop import huggingface
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import SPLIT_PATTERNS, Tokenizer
from tests import needs
from tests.interop.test_gguf import QUESTION, SHAPE, TEXTS
from tests.interop.test_huggingface import random_params

mx = needs.package("mlx.core")
mlx_lm = needs.package("mlx_lm")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("n_kv_head", [2, 1])
def test_a_folder_is_read_and_computes_what_ours_does(n_kv_head, tmp_path):
    cfg = GPTConfig(
        **SHAPE | {"n_kv_head": n_kv_head}, rope_table_dtype="float32", logit_softcap=0.0
    )
    tokenizer = Tokenizer.train(TEXTS, SHAPE["vocab_size"], SPLIT_PATTERNS["nanochat", 1])
    params = random_params(cfg, seed=1)
    folder = huggingface.export(tmp_path / "model", cfg, params, tokenizer, as_apertus=True)
    theirs, words = mlx_lm.load(str(folder))
    ids = np.random.default_rng(0).integers(0, cfg.vocab_size, (2, 60))
    got = np.array(theirs(mx.array(ids)))
    want = np.asarray(Model.create(cfg, params, dtype="float32")(ids))
    assert np.abs(want).max() > 1 and np.abs(got - want).max() < 1e-4
    assert (got.argmax(-1) == want.argmax(-1)).all()
    asked = words.apply_chat_template(QUESTION, add_generation_prompt=True)
    said = [m | {"content": m["content"].replace("<|", "< |")} for m in QUESTION]
    reply = {"role": "assistant", "content": ""}
    assert asked == tokenizer.render_for_completion({"messages": [*said, reply]})
