"""Bits per byte: the plain formula, whatever the tiles and however many devices."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax import sharding
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.paths import base_data
from nanochat_jax.config.program import Eval
from nanochat_jax.data import shards
from nanochat_jax.data.batch import MicroBatch
from nanochat_jax.evals import bpb
from nanochat_jax.evals.placing import on_mesh
from nanochat_jax.evals.run import EVALUATIONS
from nanochat_jax.models import loss as losses
from nanochat_jax.models.gpt import GPT, Model, init_params
from nanochat_jax.models.loss import token_nll
from tests.serve.world import BYTES, random_model

CFG = GPTConfig(
    sequence_len=16, vocab_size=60, n_layer=2, n_head=2, n_kv_head=2, n_embd=32, pad_vocab_to=64,
)  # fmt: skip
BYTES_V = np.arange(CFG.vocab_size) % 5  # every fifth token stands for no byte


@pytest.fixture(scope="module")
def model():
    params = init_params(CFG, jax.random.key(0))
    # The output matrix begins at zero: every loss would be ln(vocabulary).
    noise = lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape)
    return Model(GPT(CFG), jax.tree.map(noise, params))


@pytest.fixture
def tiles_of(monkeypatch):
    """Sets the tokens of a tile, and forgets what was traced with another size."""

    def set_tokens(n: int):
        monkeypatch.setattr(losses, "TILE_BYTES", 4 * CFG.vocab_size * n)
        bpb._sums.clear_cache()

    yield set_tokens
    bpb._sums.clear_cache()


def batches(rows: int):
    rng = np.random.default_rng(0)
    for _ in range(3):
        ids = rng.integers(0, CFG.vocab_size, (rows, 17)).astype(np.int32)
        targets = np.where(rng.random((rows, 16)) < 0.2, -1, ids[:, 1:])
        yield MicroBatch(ids[:, :-1], targets.astype(np.int32))


def plain(model, rows):
    """Nats of the targets that stand for bytes over their bytes, from whole logits."""
    nats = count = 0
    for batch in batches(rows):
        nll = np.asarray(token_nll(model(batch.inputs), jnp.asarray(batch.targets)), np.float64)
        sizes = np.where(batch.targets >= 0, BYTES_V[batch.targets], 0)
        nats, count = nats + nll[sizes > 0].sum(), count + sizes.sum()
    return nats / math.log(2) / count


@pytest.mark.parametrize("tile", [7, 10_000])
def test_it_is_the_plain_formula_in_tiles_of_any_size(model, tile, tiles_of):
    tiles_of(tile)
    assert bpb.bits_per_byte(model, batches(4), BYTES_V) == pytest.approx(plain(model, 4), rel=1e-6)


@pytest.mark.parametrize("rows", [8, 6], ids=["rows that divide", "rows that do not"])
def test_four_devices_give_the_number_of_one(model, rows):
    spread, _ = on_mesh(model, sharding.make_mesh("4"))
    one, four = (bpb.bits_per_byte(m, batches(rows), BYTES_V) for m in (model, spread))
    assert four == pytest.approx(one, rel=1e-6)


def test_no_array_holds_float32_logits_of_all_tokens(model, tiles_of):
    tiles_of(16)
    batch, V = next(batches(4)), CFG.vocab_size
    rows = batch.inputs, batch.targets, jnp.asarray(BYTES_V)
    text = bpb._sums.lower(model.gpt, None, model.params, *rows).as_text()
    assert re.search(rf"tensor<16x{V}xf32>", text)
    assert not re.search(rf"tensor<(4x16|64)x{V}xf32>", text)


def test_no_gradient_is_made_for_it(model):
    batch = next(batches(4))
    rows = batch.inputs, batch.targets, jnp.asarray(BYTES_V)
    text = bpb._sums.lower(model.gpt, None, model.params, *rows).as_text()
    # A block has six products, attention two more of them; the tile has one, not three.
    products = lambda text: len(re.findall(r"dot_general", text))
    hidden = jax.jit(lambda p, x: model.gpt.apply({"params": p}, x, method="hidden")[0])
    assert products(text) - products(hidden.lower(model.params, batch.inputs).as_text()) <= 2


def test_text_without_a_byte_has_no_number(model):
    nothing = (b._replace(targets=np.full_like(b.targets, -1)) for b in batches(2))
    assert bpb.bits_per_byte(model, nothing, BYTES_V) == math.inf


def test_both_splits_are_scored_and_a_mesh_changes_nothing(base_dir, tmp_path):
    BYTES.save(base_dir / "tokenizer")
    for split, word in (("train", "tick"), ("val", "tock")):
        texts = [f"{word} {n} " * 9 for n in range(64)]
        shards.write_shard(base_data(base_dir) / f"{split}.parquet", texts)
    model, score = random_model(sequence_len=16), EVALUATIONS["bpb"]
    values = {}
    for mesh, rows in (("1", 8), ("4", 2)):
        config = Eval(source="base", mesh=mesh, device_batch_size=rows, split_tokens=512)
        found = score(model, BYTES, config, base_dir).scores
        values[mesh] = {s.name: s.value for s in found}
    assert values["1"].keys() == {"train bpb", "val bpb"}
    assert values["1"]["train bpb"] != values["1"]["val bpb"]
    assert values["4"] == pytest.approx(values["1"], rel=1e-6)
