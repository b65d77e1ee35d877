"""Numbers leave a run: a name for wandb without wandb says how to get it."""

import pytest

from nanochat_jax.train import metrics


def test_a_run_name_without_wandb_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    metrics.check_run_name("dummy")
    with pytest.raises(ValueError, match=r"pip install 'nanochat_jax\[wandb\]'"):
        metrics.check_run_name("mine")


def test_what_a_killed_run_wrote_after_its_checkpoint_is_written_again(tmp_path):
    first = metrics.MetricsWriter(tmp_path)
    for step in range(4):
        first.write(step, {"val/bpb": 1.0})
        first.write(step, {"train/loss": 2.0})
    first.close()
    again = metrics.MetricsWriter(tmp_path, resume_step=2, evaluated=True)
    again.write(2, {"train/loss": 3.0})
    again.close()
    kept = [(e["step"], sorted(e)[1]) for e in metrics.read(tmp_path / "metrics.jsonl")]
    assert kept == [
        (0, "val/bpb"), (0, "train/loss"), (1, "val/bpb"), (1, "train/loss"), (2, "val/bpb"),
        (2, "train/loss"),
    ]  # fmt: skip
