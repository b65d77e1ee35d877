"""The rl stage: what is sampled, what of it is trained, and that a run can be repeated."""

import pathlib
import signal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanochat_jax import sharding
from nanochat_jax.evals.generative import EnginePool
from nanochat_jax.evals.kept import Kept
from nanochat_jax.models.loss import token_nll
from nanochat_jax.train import loop, metrics, rl, rollout_log, stages
from nanochat_jax.train.rollouts import Questions
from tests.serve.world import BYTES
from tests.train.rl_world import (
    CHATS,
    arrays,
    config,
    exchange,
    taught,
    write_conversations,
    write_sft,
)

HOPELESS = exchange("spell it", "a b c d e f g h")  # more letters than a reply has tokens


@pytest.fixture(scope="module")
def model():
    return taught(CHATS, steps=80)


@pytest.fixture
def root(base_dir, model):
    write_conversations(base_dir, [*CHATS, HOPELESS])
    write_sft(base_dir, model)
    return base_dir


@pytest.fixture(scope="module")
def pool():
    """The engines of a step, made and compiled once."""
    mesh = sharding.make_mesh("1")
    return Kept(lambda model: EnginePool(model, BYTES, max_len=64, slots=8, mesh=mesh))


@pytest.fixture
def trials(root, pool):
    def make(mesh="1", **settings):
        chosen = config(**settings)
        questions = Questions(chosen.mixture, root, "train")
        sampler = rl.Sampler(chosen, BYTES, sharding.make_mesh(mesh), 64, chosen.device_batch_size)
        if mesh == "1":
            sampler.kept = pool
        return Trial(sampler, questions, root / f"mesh{mesh}")

    return make


class Trial(NamedTuple):
    """What a step's rollouts are made of."""

    sampler: rl.Sampler
    questions: Questions
    directory: pathlib.Path


def tried(trial, model, step=0):
    """The rows of a step and its records."""
    make = next(rl.rollout_rows(*trial, steps=step + 1)(step, None)).make
    rows = make(lambda: model)
    return rows, rollout_log.read(trial.directory, step)


def train(root, **settings):
    stages.run("rl", config(**settings))
    return root / "chatrl_checkpoints" / "d2"


def rewards(directory):
    lines = metrics.read(directory / "metrics.jsonl")
    return [(line["step"], line["train/reward"]) for line in lines if "train/reward" in line]


@pytest.mark.slow
def test_a_killed_and_an_interrupted_run_end_with_the_bytes_of_one_that_was_not(
    root, tmp_path, model, monkeypatch
):
    whole = train(root)
    kept = {step: rollout_log.read(whole, step) for step in range(4)}
    assert len({tuple(r["reward"] for r in lines) for lines in kept.values()}) > 1
    assert arrays(whole / "000004") != arrays(whole / "000002")
    write, other = rollout_log.write, tmp_path / "other"
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(other))
    write_conversations(other, [*CHATS, HOPELESS])
    write_sft(other, model)

    class Killed(BaseException):
        """As `kill -9`: an error of the data would have what was learned saved."""

    def killed(directory, step, records):
        write(directory, step, records)
        if step == 3:
            raise Killed

    monkeypatch.setattr(rollout_log, "write", killed)
    with pytest.raises(Killed):
        train(other)

    def interrupted(directory, step, records):
        assert step >= 2 and rollout_log.steps(directory) == list(range(step))
        write(directory, step, records)
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(rollout_log, "write", interrupted)
    with pytest.raises(loop.Interrupted):
        train(other, resume=True)
    monkeypatch.setattr(rollout_log, "write", write)
    parts = train(other, resume=True)
    assert arrays(parts / "000004") == arrays(whole / "000004")
    assert {step: rollout_log.read(parts, step) for step in rollout_log.steps(parts)} == kept
    assert rewards(parts) == rewards(whole) and len(rewards(whole)) == 4


@pytest.mark.slow
def test_rewards_that_are_all_alike_change_nothing(root):
    directory = train(root, mixture=("exchanges:spelling",), num_iterations=2)
    assert rewards(directory) == [(0, 0.0), (1, 0.0)]
    before, after = (
        arrays(path)
        for path in (root / "chatsft_checkpoints" / "d2" / "000001", directory / "000002")
    )
    assert before == after


@pytest.mark.slow
def test_rollouts_do_not_depend_on_the_mesh(trials, model):
    _, one = tried(trials(), model, step=5)
    _, four = tried(trials(mesh="4"), model, step=5)
    assert one == four and len(one) == 8
    assert len({tuple(r["ids"]) for r in one}) > 2


@pytest.mark.slow
def test_a_step_has_questions_and_samples_of_its_own(trials, model):
    trial = trials()
    steps = [tried(trial, model, step)[1] for step in range(3)]
    examples = [sorted({r["example"] for r in records}) for records in steps]
    assert examples == [[0, 1], [2, 3], [0, 1]]
    assert [r["ids"] for r in steps[0]] != [r["ids"] for r in steps[2]]
    assert tried(trial, model, 0)[1] == steps[0]


def test_what_a_tool_wrote_gets_no_gradient_and_the_stop_does(trials, model):
    rows, records = tried(trials(num_samples=16), model)
    forced = [r for r in records if 0 in r["mask"]]
    assert any(r["advantage"] for r in forced), "no call of the tool: nothing is shown"
    targets, weights = (x.reshape(32, -1) for x in (rows.targets, rows.weights))
    logits = jax.random.normal(jax.random.key(0), (*targets.shape, 265))
    loss = lambda logits: jnp.vdot(token_nll(logits, targets), weights)
    touched = np.abs(jax.grad(loss)(logits)).max(axis=-1) > 0
    for row, record in enumerate(records):
        prompt = len(BYTES.render_for_completion({"messages": CHATS[record["example"]]}))
        trained = [False] * (prompt - 1) + [bool(m) for m in record["mask"]]
        trained = np.asarray(trained + [False] * (targets.shape[1] - len(trained)))
        assert (touched[row] == (trained & (record["advantage"] != 0))).all()
        ended = record["ids"][-1:] == [BYTES.encode_special("<|assistant_end|>")]
        assert ended == (record["finish"] == "stop")


def test_the_rows_are_what_the_model_chose(trials, model):
    """Sampled among one token only, every target is the likeliest token of its place."""
    rows, _ = tried(trials(top_k=1), model)
    inputs, targets = (x.reshape(8, -1) for x in (rows.inputs, rows.targets))
    best = np.asarray(model(inputs)).argmax(axis=-1)
    assert (targets >= 0).sum() > 8
    assert (best == targets)[targets >= 0].all()


def test_other_rows_a_pass_have_the_same_replies_and_weights(trials, model):
    two, four = trials(), trials(device_batch_size=4)
    four.sampler.micro_rows = 2  # as a run has it that began with 2 and goes on with 4
    (one, replies), (other, same) = tried(two, model), tried(four, model)
    assert replies == same and (one.inputs.shape[1], other.inputs.shape[1]) == (2, 4)
    assert np.abs(one.weights).max() > 0
    for a, b in ((one.inputs, other.inputs), (one.weights, other.weights)):
        np.testing.assert_array_equal(a.reshape(8, -1), b.reshape(8, -1))


def test_the_original_leaves_the_stop_out(trials, model):
    _, with_stop = tried(trials(), model)
    _, without = tried(trials(learn_stop=False), model)
    stops = [r["finish"] == "stop" for r in with_stop]
    assert any(stops)
    for ours, its, stopped in zip(with_stop, without, stops, strict=True):
        assert its["ids"] == (ours["ids"][:-1] if stopped else ours["ids"])
        assert its["reply"] == ours["reply"] and len(its["mask"]) == len(its["ids"])


def test_the_original_begins_replies_alike(trials, model):
    firsts = lambda records: [[r["ids"][0] for r in records[i : i + 8]] for i in (0, 8)]
    settings = dict(num_samples=8, temperature=3.0, device_batch_size=4)
    _, ours = tried(trials(**settings), model)
    _, its = tried(trials(share_first_token=True, **settings), model)
    assert all(len(set(question)) > 2 for question in firsts(ours))
    for question in firsts(its):
        assert len(set(question[:4])) == len(set(question[4:])) == 1
    assert len({tuple(r["ids"]) for r in its}) > 4


def test_a_shared_first_token_may_open_a_tool_call(trials, model):
    sure = trials(share_first_token=True, temperature=0.01)
    _, records = tried(sure, model)
    _, apart = tried(trials(temperature=0.01), model)
    assert any("<|output_start|>" in r["reply"] for r in records)
    assert records == apart


@pytest.mark.slow
def test_metrics_hold_the_promised_keys_and_pass_at_k_rises_with_k(root):
    all_five = dict(mixture=("exchanges:sums", "exchanges:spelling"), examples_per_step=5)
    directory = train(root, eval_every=1, eval_samples=3, num_iterations=1, **all_five)
    lines = metrics.read(directory / "metrics.jsonl")
    examined = [line for line in lines if "val/pass@1" in line]
    assert [line["step"] for line in examined] == [0, 1]
    passed = [examined[0][f"val/pass@{k}"] for k in (1, 2, 3)]
    assert passed == sorted(passed) and 0 < passed[0] < passed[2] <= 1
    (line,) = (line for line in lines if "train/loss" in line)
    wanted = "train/loss train/reward train/sequence_length train/stopped train/mixed "
    wanted += "train/lr_multiplier train/reward/exchanges:sums tokens_per_s step_ms"
    assert set(wanted.split()) <= line.keys()
    assert all(np.isfinite(v) for v in line.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(device_batch_size=3), "set --device-batch-size to one of 1, 2, 4, 8"),
        (dict(max_new_tokens=64), "--max-new-tokens to less, such as 32"),
        (dict(mixture=("conversations",)), "not every task has a reward"),
        (dict(mixture=("exchanges:sumz",)), "exchanges:sumz"),
        (dict(mixture=("exchanges:counts",)), "not one question"),
        (dict(num_samples=6, share_first_token=True, device_batch_size=4), "multiple of"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(root, settings, message):
    with pytest.raises(ValueError, match=message):
        stages.run("rl", config(**settings))
    assert not (root / "chatrl_checkpoints").exists()


def test_settings_out_of_range_are_refused():
    for settings in (dict(num_samples=0), dict(temperature=0.0), dict(top_k=-1)):
        with pytest.raises(ValueError, match=next(iter(settings))):
            config(**settings)


def test_questions_of_several_tasks_are_mixed_and_rewarded_each_by_its_own(root):
    questions = Questions(("exchanges:sums", "exchanges:spelling"), root, "train")
    assert len(questions) == 5 and questions.first(2) != [0, 1]
    for i in range(5):
        right = questions[i]["messages"][-1]["content"]
        reply = right if isinstance(right, str) else right[-1]["text"]
        if reply != right:
            reply = f"<|python_start|>{right[0]['text']}<|python_end|>{reply}"
        assert questions.reward(questions[i], reply) == 1.0
        assert questions.reward(questions[i], reply + "!") == 0.0
