"""The calculator's verdicts and the tokens of tool calls are the original's, one by one."""

import functools

import pytest

from nanochat_jax.serve.engine import Engine
from nanochat_jax.serve.engine.calculator import use_calculator
from nanochat_jax.tokenizer.chat_format import ASSISTANT_END
from tests.golden.conftest import files, load_json
from tests.golden.tokenizers import tokenizer_named_in
from tests.serve.world import script_table, scripted_model

FILES = files("generate_tools*.json")


@functools.cache
def engine_for(path, prompt: int, rows: int) -> Engine:
    tokenizer = tokenizer_named_in(path)
    model = scripted_model([[]] * rows, prompt, tokenizer.get_vocab_size())
    return Engine(model, tokenizer, slots=rows)


def scripted(path, prompt: list[int], scripts: list[list[int]]) -> Engine:
    """The engine whose slot b chooses `scripts[b]`, then assistant_end for ever; compiled once."""
    engine = engine_for(path, len(prompt), len(scripts))
    engine.set_params(script_table(scripts, tokenizer_named_in(path).encode_special(ASSISTANT_END)))
    return engine


@pytest.mark.parametrize("path", FILES)
def test_the_calculator_answers_and_refuses_as_the_original(path):
    for case in load_json(path)["use_calculator"]:
        result = use_calculator(case["expr"])
        assert result == case["result"], case["expr"]
        assert type(result) is type(case["result"]), case["expr"]


@pytest.mark.parametrize("path", FILES)
def test_a_tool_call_forces_the_originals_tokens(path):
    for case in load_json(path)["tool_cases"]:
        prompt, limit = case["prompt"], len(case["emitted"])
        engine = scripted(path, prompt, [case["scripted_samples"]])
        columns = list(engine.generate(prompt, max_tokens=limit, temperature=0.0))
        assert [column[0] for column, _ in columns] == case["emitted"], case["expr"]
        assert [mask[0] for _, mask in columns] == case["masks"], case["expr"]
        batch, masks = engine.generate_batch(prompt, max_tokens=limit, temperature=0.0)
        assert batch[0] == case["generate_batch"], case["expr"]
        assert masks[0] == case["generate_batch_mask"], case["expr"]


@pytest.mark.parametrize("path", FILES)
def test_rows_stop_pause_and_go_on_as_the_originals_rows(path):
    for case in load_json(path)["state_cases"]:
        settings = {key: case[key] for key in ("num_samples", "max_tokens")}
        engine = scripted(path, case["prompt"], case["scripted_samples"])
        columns = list(engine.generate(case["prompt"], temperature=0.0, **settings))
        assert [column for column, _ in columns] == case["token_columns"], case["desc"]
        assert [mask for _, mask in columns] == case["mask_columns"], case["desc"]
        engine = scripted(path, case["prompt"], case["scripted_samples"])
        batch, masks = engine.generate_batch(case["prompt"], temperature=0.0, **settings)
        assert batch == case["generate_batch"], case["desc"]
        assert masks == case["generate_batch_mask"], case["desc"]
