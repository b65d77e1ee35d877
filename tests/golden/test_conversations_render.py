"""Conversations become the original's ids and masks, and are refused where it refuses them."""

import builtins

import pytest

from tests.golden.conftest import files, load_json
from tests.golden.tokenizers import tokenizer_named_in

CONVERSATIONS = files("conversations_*.json")


@pytest.mark.parametrize("path", CONVERSATIONS)
def test_ids_and_mask_are_the_original_s(path):
    tokenizer = tokenizer_named_in(path)
    for case in load_json(path)["conversations"]:
        ids, mask = tokenizer.render_conversation(case["conversation"])
        assert (ids, mask) == (case["ids"], case["mask"]), case["desc"]
        assert (len(ids), sum(mask)) == (case["n"], case["n_supervised"]), case["desc"]


@pytest.mark.parametrize("path", CONVERSATIONS)
def test_truncated_ids_and_mask_are_the_original_s(path):
    tokenizer = tokenizer_named_in(path)
    for case in load_json(path)["conversations"]:
        for limit in _limits(case):
            expected = (case[f"ids_max{limit}"], case[f"mask_max{limit}"])
            got = tokenizer.render_conversation(case["conversation"], max_tokens=limit)
            assert got == expected, (case["desc"], limit)


def _limits(case) -> list[int]:
    return [int(key.removeprefix("ids_max")) for key in case if key.startswith("ids_max")]


@pytest.mark.parametrize("path", CONVERSATIONS)
def test_prompts_for_completion_are_the_original_s(path):
    tokenizer = tokenizer_named_in(path)
    for case in load_json(path)["conversations"]:
        expected = case.get("render_for_completion")
        if expected is not None:
            got = tokenizer.render_for_completion(case["conversation"])
            assert got == expected, case["desc"]


@pytest.mark.parametrize("path", CONVERSATIONS)
@pytest.mark.parametrize("method", ["render_conversation", "render_for_completion"])
def test_what_the_original_rejects_is_rejected(path, method):
    for case in load_json(path)["invalid"]:
        render = getattr(tokenizer_named_in(path), method)
        expected = case[f"{method}_raises"]
        if expected is None:
            render(case["conversation"])
            continue
        with pytest.raises(getattr(builtins, expected)) as caught:
            render(case["conversation"])
        assert isinstance(caught.value, ValueError) and str(caught.value), case["desc"]
