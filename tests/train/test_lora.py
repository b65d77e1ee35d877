"""Adapters trained by the stages: the weights stay, little is saved, and it goes on exactly."""

import shutil

import jax
import numpy as np
import pytest

from nanochat_jax import interop, pipeline
from nanochat_jax.checkpoint import aside, commands, find_checkpoint, load_model, manifest, store
from nanochat_jax.config import flags
from nanochat_jax.config.checkpoints import ListRuns
from nanochat_jax.config.convert import Export, Merge
from nanochat_jax.config.optim import OptimConfig
from nanochat_jax.config.paths import checkpoints
from nanochat_jax.config.resolve import resolve
from nanochat_jax.config.stages import SFTTrain
from nanochat_jax.models import lora
from nanochat_jax.serve.load import base_name
from nanochat_jax.train import chat, metrics, origin
from scripts import convert
from tests.serve.world import random_model
from tests.train import rl_world

MODEL = random_model()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A base directory with chats, a mid stage, and an sft stage whose adapters were trained."""
    root = tmp_path_factory.mktemp("base")
    rl_world.write_conversations(root, rl_world.CHATS)
    rl_world.write_sft(root, MODEL)
    checkpoints(root, "sft").rename(checkpoints(root, "mid"))
    manifest.amend_meta(store.find(checkpoints(root, "mid") / "d2").path, {"stage": "mid"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOCHAT_BASE_DIR", str(root))
        pipeline.run("sft", config())
    return root


@pytest.fixture
def root(done, base_dir):
    """A copy of it that a test may change."""
    return shutil.copytree(done, base_dir, dirs_exist_ok=True)


def config(**settings):
    small = dict(
        lora_rank=2, device_batch_size=2, target_examples_per_step=4, num_iterations=4,
        max_seq_len=64, save_every=2, keep="all", mixture=("conversations",), eval_every=-1,
        eval_metrics_every=-1, sample_every=-1, mesh="1", optim=OptimConfig(muon_dtype="float32"),
    )  # fmt: skip
    return SFTTrain(**(small | settings))


def trained(root, **settings):
    pipeline.run("sft", config(**settings))
    return find_checkpoint("sft", None, None, root)


def losses(root):
    lines = metrics.read(checkpoints(root, "sft") / "d2" / "metrics.jsonl")
    return [line["train/loss"] for line in lines if "train/loss" in line]


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def check_adapters(saved):
    """Little is saved, the base is what it was, and what is loaded is both."""
    own = saved.trained()
    sides = [sum(shape) for shape in lora.targets(MODEL.params).values()]
    assert sum(leaf.size for leaf in jax.tree.leaves(own)) == 2 * sum(sides)
    store.verify(saved)  # the base too, whose files say that nothing was written there
    equal(saved.base.params(), MODEL.params)
    model, _, meta = load_model("sft")
    assert meta["lora"]["rank"] == 2
    equal(model.params, lora.merged(MODEL.params, own))
    equal(model.params["wte"], MODEL.params["wte"])
    equal(load_model("sft", merge=False)[0].params, lora.attached(MODEL.params, own))
    assert base_name("nanochat-sft-d2", meta) == "nanochat-mid-d2"


def test_adapters_alone_are_trained_and_saved_and_a_loaded_model_has_them(root):
    assert losses(root)[-1] < losses(root)[0]
    check_adapters(find_checkpoint("sft", None, None, root))


@pytest.mark.slow
def test_adamw_trains_them_too_and_a_run_that_goes_on_ends_with_the_same_bytes(root):
    # Of the recipe whose Muon has a second moment: there is nothing that it would be of.
    how = dict(lora_optimizer="adamw", optim=OptimConfig(muon_beta2=0.9))
    first = trained(root, **how)
    check_adapters(first)
    params, optimizer = first.trained(), first.optimizer()
    again = trained(root, **how, resume_from_step=2)
    equal(again.trained(), params)
    equal(again.optimizer(), optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["2", "fsdp=2"])
def test_two_devices_train_the_adapters_of_one(root, mesh):
    curve, one = losses(root), find_checkpoint("sft", None, None, root).trained()
    other = trained(root, mesh=mesh).trained()
    np.testing.assert_allclose(losses(root), curve, rtol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), one, other)


@pytest.mark.slow
def test_a_base_that_the_run_itself_moves_out_of_its_way_is_found(root):
    before, folder = load_model("sft")[0].params, checkpoints(root, "sft")
    saved = trained(root, init=str(folder / "d2"))
    assert saved.path.parent == folder / "d2" and saved.base.path == folder / ".old/d2-1/000004"
    equal(load_model("sft")[0].params, lora.merged(before, saved.trained()))


@pytest.mark.slow
def test_adapters_for_a_model_that_is_one_with_adapters_and_replies_while_they_train(root):
    before, _, _ = load_model("sft")
    pipeline.run("rl", rl_world.config(lora_rank=1, num_iterations=2))
    saved = find_checkpoint("rl", None, None, root)
    equal(saved.base.params(), before.params)
    equal(load_model("rl")[0].params, lora.merged(before.params, saved.trained()))


def exported(folder, tag):
    """What export writes of a model."""
    interop.export_model(Export(dir=str(folder / tag), source="sft", model_tag=tag, as_name="x"))
    return next((folder / tag).rglob("model_*.pt")).read_bytes()


def test_merging_writes_an_ordinary_checkpoint_that_needs_no_base(root, tmp_path, capsys):
    want = load_model("sft")[0].params
    assert convert.main(["merge", "--source", "sft", "--as", "whole"]) == 0
    assert "next: python -m scripts.chat_cli -i sft -g whole" in capsys.readouterr().out
    for argv, said in ((["-g", "whole"], "holds whole weights"), (["--as", "whole"], "exists")):
        with pytest.raises(ValueError, match=said):
            interop.merge(flags.whole(["--model-tag=d2", *argv], Merge, prog="merge"))
    assert exported(tmp_path, "whole") == exported(tmp_path, "d2")
    commands.run(ListRuns())
    assert "adapters beside mid_checkpoints/d2/000001" in capsys.readouterr().out
    shutil.rmtree(checkpoints(root, "mid"))
    model, _, meta = load_model("sft", "whole")
    equal(model.params, want)
    assert "lora" not in meta and meta["config"]["lora_rank"] == 0


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (dict(lora_rank=4), "--lora-rank is 4, but the run began with 2; leave the flag out"),
        (dict(lora_rank=0), "--lora-rank is 0, but the run began with 2"),
        (dict(lora_optimizer="adamw"), "--lora-optimizer is adamw, but the run began with muon"),
    ],
)
def test_another_rank_or_optimizer_is_refused_where_a_run_goes_on(root, other, said):
    with pytest.raises(ValueError, match=said):
        pipeline.run("sft", config(resume=True, **other))


def test_base_training_has_no_adapters_and_says_whose_they_are():
    with pytest.raises(ValueError, match=r"it is one of mid, .* under \[mid\] in a file"):
        resolve("base", ["--lora-rank=8"])
    with pytest.raises(ValueError, match="--lora-rank is -1; set it to 1 or more, or to 0"):
        resolve("sft", ["--lora-rank=-1"])
    with pytest.raises(
        ValueError, match="--lora-lr is 0.01, but no adapters are trained; add --lora"
    ):
        resolve("sft", ["--lora-lr=0.01"])


def test_a_base_that_was_moved_aside_is_found_and_stays(root):
    want = load_model("sft")[0].params
    folder, home = checkpoints(root, "mid") / "d2", checkpoints(root, "mid")
    for _ in range(aside.KEEP + 2):  # the first is the base, and the oldest
        moved = aside.move(folder)
        shutil.copytree(moved.path, folder, ignore=shutil.ignore_patterns(aside.RECORD, "params"))
        (folder / "000001" / manifest.NAME).write_text("{}")
    assert {a.path.name for a in aside.prune(root, finished=True)} == {"d2-2"}
    assert store.find(checkpoints(root, "sft") / "d2").base.path == home / ".old/d2-1/000001"
    equal(load_model("sft")[0].params, want)


def test_a_base_that_is_gone_or_another_is_told_with_what_to_type(root):
    folder = checkpoints(root, "mid") / "d2" / "000001"
    listed = manifest.NAME
    text = (folder / listed).read_text()
    (folder / listed).write_text(text.replace('"params/', '"params/x'))
    with pytest.raises(
        ValueError, match=r"mid_checkpoints/d2/000001 \(digest \w{16}\), but there "
    ):
        load_model("sft")
    shutil.rmtree(folder)
    said = "and that checkpoint is gone.*--stage sft --init CHECKPOINT --model-tag d2 --lora-rank 2"
    with pytest.raises(FileNotFoundError, match=said):
        load_model("sft")


def test_the_optimizer_of_adapters_is_none_for_weights(root, caplog):
    source = store.find(checkpoints(root, "sft") / "d2")
    assert chat.warm_optimizer(config(lora_rank=0, load_optimizer=1), origin.Origin(source)) is None
    assert "is that of adapters: it begins afresh" in caplog.text
