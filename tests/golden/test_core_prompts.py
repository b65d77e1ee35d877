"""CORE asks as the original: the same solved examples, prompts, ids, spans and crops."""

import numpy as np
import pytest

from nanochat_jax.evals.core import prompts
from tests.golden.conftest import files, load_json
from tests.golden.core_files import cases, task_of
from tests.golden.tokenizers import golden_tokenizer


def texts_of(path, golden, i):
    items, task = load_json(path)["datasets"][golden["task"]], task_of(golden)
    shots = prompts.shot_indices(i, len(items), task.shots)
    return prompts.render(task, items[i], [items[j] for j in shots])


@pytest.mark.parametrize(("path", "n"), cases())
def test_the_same_solved_examples_are_drawn(path, n):
    golden = load_json(path)["results"][n]
    total = len(load_json(path)["datasets"][golden["task"]])
    for example in golden["examples"]:
        drawn = prompts.shot_indices(example["idx"], total, task_of(golden).shots)
        assert drawn == example["fewshot_indices"]


@pytest.mark.parametrize(("path", "n"), cases())
def test_prompts_are_the_same(path, n):
    golden = load_json(path)["results"][n]
    for example in golden["examples"]:
        assert texts_of(path, golden, example["idx"]) == example["prompts"]


@pytest.mark.parametrize(("path", "n"), cases())
def test_ids_and_spans_are_the_same(path, n):
    golden = load_json(path)["results"][n]
    tokenizer = golden_tokenizer(path.parent)
    limit = golden["max_seq_len"] or 10**9
    for example in golden["examples"]:
        texts = texts_of(path, golden, example["idx"])
        ids = tokenizer.encode(texts, tokenizer.get_bos_token_id())
        whole = prompts.spans(task_of(golden).kind, ids)
        assert [len(r.ids) for r in whole] == example.get(
            "uncropped_lengths", [len(t) for t in example["tokens"]]
        )
        rows = [prompts.cropped(row, limit) for row in whole]
        assert [r.ids.tolist() for r in rows] == example["tokens"]
        assert [r.start for r in rows] == example["start_idxs"]
        assert [r.end for r in rows] == example["end_idxs"]


@pytest.mark.parametrize("path", files("core_eval_*.json"))
def test_common_beginnings_and_ends_are_the_same(path):
    count = {"left": prompts.common_prefix, "right": prompts.common_suffix}
    for case in load_json(path)["util"]["find_common_length"]:
        rows = [np.array(row) for row in case["seqs"]]
        assert count[case["direction"]](rows) == case["result"]
