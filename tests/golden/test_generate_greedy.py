"""Greedy replies through the Engine are the original's tokens, with its probabilities."""

import functools

import numpy as np
import pytest

from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.requests import Request
from tests.golden.conftest import files, load_npz
from tests.golden.models import golden_model
from tests.golden.numbers import absolute
from tests.golden.tokenizers import golden_tokenizer

FILES = files("generate_*.npz")


@functools.cache
def engine_for(path) -> Engine:
    data, prompts = load_npz(path), prompts_of(path)
    model = golden_model(path.parent / data["cfg.json"]["model"])
    longest = max(len(data[f"{p}.prompt"]) for p in prompts) + data["cfg.json"]["max_tokens"]
    room = max(model.cfg.sequence_len, longest)
    engine = Engine(model, golden_tokenizer(path.parent), slots=len(prompts), max_len=room)
    engine.pool.chunks = (16, 256)  # two sizes to compile, and chunks that follow one another
    return engine


def prompts_of(path) -> list[str]:
    return [f"p{i}" for i in range(int(load_npz(path)["n_prompts"]))]


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES)
def test_many_prompts_at_once_give_the_originals_tokens(path):
    data, engine = load_npz(path), engine_for(path)
    limit = data["cfg.json"]["max_tokens"]
    requests = [
        Request(tuple(data[f"{p}.prompt"].tolist()), limit, 0.0, alternatives=True)
        for p in prompts_of(path)
    ]
    jobs = [engine.submit(request) for request in requests]
    while any(not job.done for job in jobs):
        engine.tick()
    for p, job in zip(prompts_of(path), jobs, strict=True):
        assert [choice.id for choice in job.tokens] == data[f"{p}.tokens"].tolist(), p
        assert [int(choice.sampled) for choice in job.tokens] == data[f"{p}.masks"].tolist(), p
        expected_TN = data[f"{p}.top8_logits"] - data[f"{p}.logsumexp"][:, None]
        for choice, ids_N, logprobs_N in zip(
            job.tokens, data[f"{p}.top8_ids"], expected_TN, strict=True
        ):
            found = dict(choice.top)
            absolute([found[i] for i in ids_N.tolist()], logprobs_N, "logits", p)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES)
def test_generate_batch_returns_the_originals_sequences(path):
    data, engine = load_npz(path), engine_for(path)
    for p in prompts_of(path):
        sequences, masks = engine.generate_batch(
            data[f"{p}.prompt"].tolist(),
            num_samples=2,
            max_tokens=data["cfg.json"]["max_tokens"],
            temperature=data["cfg.json"]["temperature"],
        )
        expected, mask = np.atleast_2d(data[f"{p}.batch2"]), np.atleast_2d(data[f"{p}.batch2_mask"])
        for row in range(len(expected)):
            assert sequences[row] == expected[row].tolist(), p
            assert masks[row] == mask[row].tolist(), p
