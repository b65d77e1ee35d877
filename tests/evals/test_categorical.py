"""Letters are chosen by their logits, whatever shares the batch."""

import jax
import numpy as np
import pytest

from nanochat_jax import sharding
from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.evals import categorical
from nanochat_jax.models.gpt import Model, init_params
from nanochat_jax.tasks import choice
from nanochat_jax.tokenizer import Tokenizer
from tests.evals import letters

TOKENIZER = Tokenizer.train(["which letter is right, A or B? the cat sat"] * 3, 300)


@pytest.fixture(scope="module")
def model():
    shape = dict(sequence_len=64, vocab_size=300, n_layer=1, n_head=2, n_kv_head=1, n_embd=32)
    cfg = GPTConfig(**recipe_model_defaults("current") | shape)
    params = jax.jit(lambda: init_params(cfg, jax.random.key(0)))()
    noise = lambda keys, p: (
        p + 0.3 * jax.random.normal(jax.random.key(len(jax.tree_util.keystr(keys))), p.shape)
    )
    return Model.create(cfg, jax.tree_util.tree_map_with_path(noise, params))


def questions(n):
    words = "the cat sat on which letter".split()
    return [
        choice.conversation(" ".join(words * (i + 1)), "ABCD"[: 2 + i % 3], words, "A")
        for i in range(n)
    ]


def test_a_choice_does_not_depend_on_its_batch(model):
    asked = questions(5)
    together = letters.choose(model, TOKENIZER, asked, rows=4)
    for got, want in zip(together, letters.choose(model, TOKENIZER, asked, rows=1), strict=True):
        np.testing.assert_allclose(got.logits, want.logits, atol=1e-4)
        assert got.letter == want.letter


def test_logits_are_those_of_the_whole_model(model):
    (conversation,) = questions(1)
    (got,) = letters.choose(model, TOKENIZER, [conversation], rows=4)
    ids = [categorical.letter_id(TOKENIZER, x) for x in conversation["letters"]]
    want = np.asarray(model(TOKENIZER.render_for_completion(conversation)))[0, -1, ids]
    np.testing.assert_allclose(got.logits, want, atol=1e-4)
    assert got.letter == conversation["letters"][int(want.argmax())]


def test_logits_are_the_same_on_any_mesh(model):
    mesh, asked = sharding.make_mesh("4"), questions(3)
    spread = jax.device_put(model.params, sharding.replicated(mesh))
    one = letters.choose(model, TOKENIZER, asked, rows=4)
    for got, want in zip(
        letters.choose(Model(model.gpt, spread), TOKENIZER, asked, rows=4), one, strict=True
    ):
        np.testing.assert_allclose(got.logits, want.logits, atol=1e-4)


def test_letters_of_several_tokens_are_refused(model):
    asked = [choice.conversation("which", ["A", "zq"], ["x", "y"], "A")]
    with pytest.raises(ValueError, match="'zq' is 2 tokens"):
        letters.choose(model, TOKENIZER, asked)


def test_no_questions_have_no_answers(model):
    assert letters.choose(model, TOKENIZER, []) == []
