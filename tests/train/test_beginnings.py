"""Where a run begins: nothing moves before it can, and what it stands on stays what it was."""

import dataclasses
import functools
import json
import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax import locks, pipeline, speedrun
from nanochat_jax.checkpoint import store
from nanochat_jax.config.paths import checkpoints
from nanochat_jax.config.stages import STAGES
from nanochat_jax.data import importer, shards
from nanochat_jax.stopping import Interrupted
from nanochat_jax.train import beginning, origin, setup, stages, was_read
from nanochat_jax.train.curriculum import loader_rows
from tests.train.test_loop import Counting
from tests.train.tiny_chain import CHATS, SETTINGS

REST = """\
num_iterations = 2
[mid]
num_iterations = 2
mixture = ["conversations"]
[sft]
num_iterations = 4
save_every = 2
target_examples_per_step = 2
eval_metrics_every = -1
mixture = ["conversations"]
"""


@pytest.fixture
def run(base_dir, tmp_path):
    """Runs a stage of a tiny chain; text, chats, tokenizer and a base model are there."""
    text, chats, file = tmp_path / "t.jsonl", tmp_path / "c.jsonl", tmp_path / "c.toml"
    rows = (json.dumps({"text": f"The number {n} is one more than {n - 1}."}) for n in range(300))
    text.write_text("\n".join(rows))
    chats.write_text("\n".join(map(json.dumps, CHATS)))
    file.write_text(SETTINGS + REST)
    importer.add_documents(base_dir, [text])
    importer.add_conversations(base_dir, [chats])

    def program(stage, *argv):
        mesh = [] if stage == "tokenizer" else ["--mesh=1"]
        config = pipeline.configure(stage, [f"--config={file}", *mesh, *argv])
        pipeline.run(stage, config)

    program("tokenizer")
    program("base")
    return program


def names(base_dir, stage="base"):
    return sorted(p.name for p in checkpoints(base_dir, stage).iterdir())


def saved(base_dir, stage, tag="d1", step=None):
    return store.find(checkpoints(base_dir, stage) / tag, step)


def test_a_run_can_begin_with_a_checkpoint_of_its_own_folder(run, base_dir):
    before = saved(base_dir, "base").params()
    run("base", f"--init={checkpoints(base_dir, 'base') / 'd1'}")
    kept = store.find(checkpoints(base_dir, "base") / ".old" / "d1-1").params()
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(a, b)
    assert saved(base_dir, "base").meta["final"]
    read = [stage.title for stage in was_read.stages(saved(base_dir, "base"), base_dir)]
    assert read == ["base d1, step 2", "base d1-1, step 2"]  # not the same place for ever


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--loader-ranks=64", "row group"),
        ("--run=mine", "wandb"),
        ("--device-batch-size=3", "does not divide"),
    ],
)
def test_a_run_that_cannot_begin_moves_nothing(flag, told, run, base_dir, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    before = {p: p.stat().st_mtime_ns for p in checkpoints(base_dir, "base").rglob("*")}
    with pytest.raises(ValueError, match=told):
        run("base", flag)
    assert before == {p: p.stat().st_mtime_ns for p in checkpoints(base_dir, "base").rglob("*")}


def test_a_run_whose_data_or_log_fail_moves_nothing(run, base_dir, monkeypatch):
    import types

    before = {p: p.stat().st_mtime_ns for p in checkpoints(base_dir, "base").rglob("*")}
    refused = lambda **_: (_ for _ in ()).throw(RuntimeError("no key"))
    wandb = types.SimpleNamespace(Error=RuntimeError, init=refused)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("nanochat_jax.train.metrics.check_run_name", lambda name: None)
    with pytest.raises(ValueError, match="wandb, which refuses: no key; type wandb login"):
        run("base", "--run=mine")
    shard = shards.find_shards(base_dir).train[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:4] + bytes(len(whole) - 1000) + whole[-996:])  # the foot still reads
    with pytest.raises(ValueError, match=shard.name):
        run("base")
    assert before == {p: p.stat().st_mtime_ns for p in checkpoints(base_dir, "base").rglob("*")}


def test_what_is_begun_what_was_moved_and_what_to_type_are_told(run, base_dir, caplog, monkeypatch):
    (base_dir / "base_data" / "._shard.parquet").touch()
    caplog.set_level("INFO")
    run("base")
    told = caplog.text
    home = checkpoints(base_dir, "base") / "d1"
    for line in (
        "parameters: 1 layers, width 16, context 32, vocabulary 280",
        "begins    with weights drawn anew (seed 42)",
        "hidden files left out: ._shard.parquet",
        "steps     2 of 128 tokens = 256 tokens",
        "batch     2 rows of 32 tokens on each device, 2 times a step",
        "devices   cpu (float32, attention blocks, remat none)",
        f"saved in  {home} (every 15m, keeps last=3,best=1)",
        "compiled in ",
        "talk to it  python -m scripts.chat_cli -i base",
        "next        python -m scripts.train --stage mid",
    ):
        assert line in told
    back = "back with: python -m scripts.checkpoints restore base/d1-1"
    assert told.count(back) == 2  # when it is moved, and at the end
    assert told.index("compiled in") < told.index(back)
    caplog.clear()
    run("base", "--resume")
    assert "at its end: step 2 was the last, and nothing is left to train" in caplog.text
    caplog.clear()
    run("base", "--resume", "--num-iterations=3")
    assert "begins    going on from step 2 of 3" in caplog.text and back not in caplog.text


def test_a_run_begun_from_another_checkpoint_goes_on_with_its_types_and_its_parent(run, base_dir):
    source = saved(base_dir, "base")
    params = source.params()
    params["wte"]["embedding"] = params["wte"]["embedding"].astype(jnp.bfloat16)
    theirs = base_dir / "theirs"
    store.save(theirs, 7, params, source.meta)
    argv = ["-g=mine", "--num-iterations=4", "--save-every=2"]
    run("base", f"--init={theirs}", *argv)
    whole = saved(base_dir, "base", "mine")
    whole_params = whole.params()
    run("base", "--resume-from-step=2", *argv)
    again = saved(base_dir, "base", "mine")
    # What was there beyond that step is another run's by now, and no later --resume finds it.
    aside = checkpoints(base_dir, "base") / ".old" / "mine-1"
    assert store.steps(aside) == [4] and store.find(aside).meta == whole.meta
    for a, b in zip(jax.tree.leaves(whole_params), jax.tree.leaves(again.params()), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert whole.meta["fingerprint"] == again.meta["fingerprint"]
    assert whole.meta["fingerprint"]["parent"] is not None


def test_a_chat_run_begun_from_a_folder_is_resumed_by_its_tag(run, base_dir):
    theirs = base_dir / "theirs"
    store.save(theirs, 7, saved(base_dir, "base").params(), saved(base_dir, "base").meta)
    run("sft", f"--init={theirs}", "-g=mine")
    whole = saved(base_dir, "sft", "mine")
    run("sft", "-g=mine", "--resume-from-step=2")
    again = saved(base_dir, "sft", "mine")
    assert whole.step == again.step == 4
    digest = store.find(theirs).identity["checkpoint digest"]
    assert whole.meta["source"] == {"path": "theirs/000007", "digest": digest}
    assert again.meta["source"] == whole.meta["source"]
    assert whole.meta["fingerprint"] == again.meta["fingerprint"]


def asked_to_stop(monkeypatch, place, name, before):
    """Sends this process Ctrl-C's signal where a run comes by, before or after it was there."""
    real, ask = getattr(place, name), functools.partial(os.kill, os.getpid(), signal.SIGINT)

    def passing(*args):
        if before:
            ask()
        out = real(*args)
        if not before:
            ask()
        return out

    monkeypatch.setattr(place, name, passing)


def test_a_run_stopped_while_it_compiles_says_that_nothing_changed(
    run, base_dir, monkeypatch, caplog
):
    run("base", "--save-every=1")
    before = {p: p.stat().st_mtime_ns for p in checkpoints(base_dir, "base").rglob("*")}
    asked_to_stop(monkeypatch, beginning, "_compiled", before=True)
    caplog.set_level("INFO")
    nothing = "no step was done, and nothing on disk has changed; to"
    for flag, what in (("--seed=1", "begin"), ("--resume-from-step=1", "go on")):
        caplog.clear()
        with pytest.raises(Interrupted) as left:
            run("base", flag)
        assert left.value.code == 130
        assert f"{nothing} {what} type the same again" in caplog.text
        assert "is saved" not in caplog.text and "back with" not in caplog.text
    assert before == {p: p.stat().st_mtime_ns for p in checkpoints(base_dir, "base").rglob("*")}


def test_a_run_stopped_before_its_first_step_says_what_it_moved(run, base_dir, monkeypatch, caplog):
    monkeypatch.setattr(sys, "orig_argv", "python -m scripts.train base --seed=1".split())
    run("base", "--save-every=1", "-g=first")
    asked_to_stop(monkeypatch, origin, "make_room", before=False)
    caplog.set_level("INFO")
    with pytest.raises(Interrupted):
        run("base")
    assert "no step was done; to begin type the same again" in caplog.text
    assert "nothing on disk" not in caplog.text
    assert "the run before it is base/d1-1; back with: " in caplog.text
    caplog.clear()
    with pytest.raises(Interrupted):
        run("base", "-g=first", "--resume-from-step=1")
    assert "step 1 is saved; to go on type: python -m scripts.train base" in caplog.text
    assert "what came after step 1 is base/first-1; back with: " in caplog.text


def test_the_commands_at_the_end_name_a_run_that_would_not_be_guessed(run, base_dir, caplog):
    caplog.set_level("INFO")
    run("base", "-g=mine")
    for line in (
        "talk to it  python -m scripts.chat_cli -i base -g mine",
        "scores      python -m scripts.eval -i base -g mine",
        "next        python -m scripts.train --stage mid -g mine",
    ):
        assert line in caplog.text
    for tag in ("mine", "d1"):
        config = pipeline.configure("mid", [f"-g={tag}"] if tag == "mine" else [])
        assert speedrun.folder_of("mid", config, base_dir) == checkpoints(base_dir, "mid") / tag
    caplog.clear()
    for tag in ("mine", "d1"):
        speedrun._finish(base_dir, checkpoints(base_dir, "base") / tag, 0, time.perf_counter())
    told = [line for line in caplog.messages if line.startswith("now talk to it")]
    assert told == [
        "now talk to it:  python -m scripts.chat_web -i base -g mine",
        "now talk to it:  make chat   or   make web   (python -m scripts.chat_web -i base)",
    ]


@pytest.mark.parametrize("first", [4, 5, 9])
def test_a_run_resumed_with_fewer_steps_than_it_has_done_is_over(first):
    upcoming = loader_rows(Counting(), 1, 1, steps=4)(first, {"n": first})
    assert next(upcoming)[1] is None


@pytest.mark.parametrize("stage", ["base", "mid", "sft", "rl"])
@pytest.mark.parametrize("name", ["eval_every", "sample_every"])
def test_never_is_minus_one_and_zero_is_refused(stage, name):
    with pytest.raises(ValueError, match=f"{name} is 0.*-1 for never"):
        STAGES[stage](**{name: 0})


def test_the_steps_of_a_run_are_those_it_was_compiled_with_beforehand():
    from tests.train.test_setup import CFG, CONFIGS

    mesh = setup.sharding.make_mesh("1")
    config = dataclasses.replace(CONFIGS["base"], remat="dots")
    made = setup.trainer(config, CFG, mesh, steps=123)
    step, state, batch = setup.abstract_run(config, CFG, mesh, steps=123)
    assert step.lower(state, batch).as_text() == made.step.lower(state, batch).as_text()


def test_a_run_goes_on_from_its_last_whole_step(run, base_dir, caplog):
    run("base", "--save-every=1")
    folder = checkpoints(base_dir, "base") / "d1"
    want = saved(base_dir, "base").params()
    (folder / "000002" / "loader.json").write_text("{")
    # What the speedrun asks first: a finished stage whose weights are damaged is none.
    saved_config = pipeline.configure("base", ["--resume-from-step=1", "-g=d1"])
    _, have, final = stages.status("base", saved_config, base_dir)
    assert have is not None and not final
    run("base", "--resume")
    assert "000002 is damaged: loader.json is changed" in caplog.text
    assert (folder / "000002.damaged" / "meta.json").exists()
    for a, b in zip(jax.tree.leaves(saved(base_dir, "base").params()), jax.tree.leaves(want),
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def test_a_second_run_of_a_directory_is_refused_and_moves_nothing(run, base_dir):
    folder = checkpoints(base_dir, "base") / "d1"
    before = sorted(folder.iterdir())
    with locks.held(folder), pytest.raises(ValueError, match="d1 is in use by process"):
        run("base")
    assert sorted(folder.iterdir()) == before
