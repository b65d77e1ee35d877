"""The pretraining loaders give the original's batches, rank by rank, and stand where it stood."""

import numpy as np
import pytest

from nanochat_jax.data import shards
from nanochat_jax.data.loader import pretraining_loader
from tests.golden.conftest import beside, era_of, files, load_json, load_npz
from tests.golden.tokenizers import golden_tokenizer

CASES = [
    pytest.param(p.values[0], case, id=f"{p.id}/{case}", marks=p.marks)
    for p in files("loader_batches*.npz")
    for case in (load_npz(p.values[0])["meta.json"]["cases"] if p.values[0] else ["absent"])
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "case"), CASES)
def test_every_batch_of_the_original_comes_at_its_step(path, case):
    data = load_npz(path)
    meta = data["meta.json"]["cases"][case]
    shard_files = shards.list_shards(beside(path.parent, "loader_data*"))
    chosen = shard_files[-1:] if meta["split"] == "val" else shard_files[:-1]
    kind = "stream" if era_of(path) == "classic" else "bestfit"
    world, rank = meta["world"], meta["rank"]
    loader = pretraining_loader(
        chosen, golden_tokenizer(path.parent), meta["B"], meta["T"], kind=kind, ranks=world,
        tokenizer_batch=meta["tokenizer_batch_size"], buffer_size=meta.get("buffer_size", 0),
        prefetch=0,
    )  # fmt: skip
    batches = iter(loader)
    if position := meta.get("resume_state_dict"):
        batches.set_state(position)
    pulls = (b for i, b in enumerate(batches) if i % world == rank)
    for step in range(meta["steps"]):
        batch = next(pulls)
        np.testing.assert_array_equal(batch.inputs, data[f"{case}.inputs"][step])
        np.testing.assert_array_equal(batch.targets, data[f"{case}.targets"][step])
        if "states" in meta:
            assert batch.position == meta["states"][step]


@pytest.mark.parametrize("path", files("loader_doc_order*.json"))
def test_documents_are_read_in_the_original_s_order(path):
    shard_files = shards.list_shards(beside(path.parent, "loader_data*"))
    for name, groups in load_json(path).items():
        split, start, step = name.split(".")
        chosen = shard_files[-1:] if split == "val" else shard_files[:-1]
        numbers = int(start.removeprefix("start")), int(step.removeprefix("step"))
        read = [[len(t) for t in texts] for texts in shards.iter_documents(chosen, *numbers)]
        assert read == groups, name
