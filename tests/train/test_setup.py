"""The assembly of a run: one for every stage, from shapes alone, its source opened once."""

import dataclasses

import jax
import pytest

from nanochat_jax import sharding
from nanochat_jax.checkpoint import store
from nanochat_jax.config.gpt import GPTConfig
from nanochat_jax.config.stages import BaseTrain, MidTrain, RLTrain, SFTTrain
from nanochat_jax.models.gpt import Model, init_params
from nanochat_jax.train import setup, stages
from tests.train import rl_world

CFG = GPTConfig(sequence_len=16, vocab_size=64, n_layer=1, n_head=1, n_kv_head=1, n_embd=32)
SMALL = dict(device_batch_size=2, max_seq_len=16)
TOKENS = dict(SMALL, total_batch_size=128)
CONFIGS = {
    "base": BaseTrain(**TOKENS, num_iterations=9),
    "mid": MidTrain(**TOKENS),
    "sft": SFTTrain(**SMALL, target_examples_per_step=8),
    "rl": RLTrain(**SMALL, examples_per_step=2, num_samples=4),
}


@pytest.mark.parametrize("stage", CONFIGS)
def test_the_step_of_every_stage_lowers_from_shapes_alone(stage):
    mesh = sharding.make_mesh("2")
    step, state, batch = setup.abstract_run(CONFIGS[stage], CFG, mesh)
    assert batch.inputs_ART.shape == (2, 4, 16)
    assert (batch.weights_ART is not None) == (stage == "rl")
    lowered = step.lower(state, batch)
    after, metrics = lowered.out_info
    assert after.params["wte"]["embedding"].shape == (64, 32) and "train/loss" in metrics
    text = lowered.as_text()
    donated = text.count("tf.aliasing_output") + text.count("jax.buffer_donor")
    assert donated >= len(jax.tree.leaves(state))


def test_fp8_is_for_steps_and_no_evaluation():
    cfg = dataclasses.replace(CFG, n_embd=128)
    for fp8 in (False, True):
        config = dataclasses.replace(CONFIGS["base"], fp8=fp8)
        made = setup.trainer(config, cfg, sharding.make_mesh("1"), steps=9)
        step, *args = setup.abstract_run(config, cfg, sharding.make_mesh("1"))
        assert ("f8E5M2" in step.lower(*args).as_text()) == fp8
        assert not made.gpt.fp8 and setup.model_of(cfg, config).fp8 == fp8


@pytest.mark.parametrize(
    ("config", "advice"),
    [
        (
            BaseTrain(**SMALL, total_batch_size=96, num_iterations=1),
            "--device-batch-size to one of",
        ),
        (MidTrain(**SMALL, total_batch_size=100), "--total-batch-size to a multiple of 64"),
        (RLTrain(**SMALL, examples_per_step=1, num_samples=5), "--num-samples to a multiple of 4"),
    ],
)
def test_a_step_that_does_not_divide_over_the_devices_names_what_would(config, advice):
    with pytest.raises(ValueError, match=advice):
        setup.passes(config, CFG, sharding.make_mesh("2"))


@pytest.fixture
def root(base_dir, key):
    rl_world.write_conversations(base_dir, rl_world.CHATS)
    shape = rl_world.SHAPE
    rl_world.write_sft(base_dir, Model(setup.GPT(shape), init_params(shape, key)))
    return base_dir


def test_preparing_a_run_digests_its_source_once_and_writes_nothing(root, monkeypatch):
    verified, verify = [], store.verify
    monkeypatch.setattr(store, "verify", lambda saved: verified.append(saved) or verify(saved))
    before = sorted(root.rglob("*"))
    run = setup.prepare("rl", rl_world.config(), root)
    assert verified == [run.start.source]
    assert run.fingerprint["tokenizer"] == run.tokenizer.hash
    assert sorted(root.rglob("*")) == before


def test_a_stage_without_a_checkpoint_of_its_own_is_not_done(root):
    want, have, final = stages.status("rl", rl_world.config(), root)
    assert have is None and not final
    assert want == setup.prepare("rl", rl_world.config(), root).fingerprint


@pytest.fixture
def finished(root):
    """What status says of an rl stage that is done, where wanted and had differ."""
    run = setup.prepare("rl", rl_world.config(), root)
    meta = {
        "stage": "rl", "final": True, "fingerprint": run.fingerprint, "data": run.curriculum.data,
        "model_config": vars(run.start.model_config()), "tokenizer_hash": run.tokenizer.hash,
    }  # fmt: skip
    store.save(run.directory, 2, run.start.source.params(), meta)

    def differences():
        want, have, final = stages.status("rl", rl_world.config(), root)
        assert final
        return {k: (want.get(k), have.get(k)) for k in want | have if want.get(k) != have.get(k)}

    return differences


def test_a_finished_stage_that_finds_other_chats_is_not_the_one_that_is_asked_for(root, finished):
    assert finished() == {}
    file = root / "conversations" / "train.jsonl"
    was = file.read_text()
    file.write_text(was + was)
    ((name, (want, have)),) = finished().items()
    assert name == "data conversations/train.jsonl" and want != have and want and have
    file.write_text(was)
    assert finished() == {}
    file.unlink()  # nothing new: it may be thrown away once it is learned
    assert finished() == {}
    world = root / "world_data" / "conversations_sft.jsonl"
    world.parent.mkdir()
    world.write_text(was)
    assert list(finished()) == ["data world_data/conversations_sft.jsonl"]


def test_a_parent_that_was_trained_again_on_other_data_is_another(root, finished):
    parent = store.find(root / "chatsft_checkpoints" / "d2")
    params = parent.params()
    for tasks, rows in (("conversations", 3), ("conversations", 4)):
        data = {"tasks": [[tasks, rows]], "micro_rows": 2}
        store.save(parent.path.parent, 1, params, {**parent.meta, "data": data})
        # An earlier version said nothing of it: its children stay done.
        assert finished() == {}
        told = setup.prepare("rl", rl_world.config(), root).fingerprint["parent_data"]
        assert isinstance(told, str)
    child = store.find(root / "chatrl_checkpoints" / "d2")
    now = {**child.meta, "fingerprint": {**child.meta["fingerprint"], "parent_data": told}}
    store.save(child.path.parent, 2, child.params(), now)
    assert finished() == {}
    data["tasks"][0][1] = 5
    store.save(parent.path.parent, 1, params, {**parent.meta, "data": data})
    assert list(finished()) == ["parent_data"]
