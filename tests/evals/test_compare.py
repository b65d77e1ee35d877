"""Two evaluations side by side: counted by question, and no difference made of noise."""

import numpy as np
import pytest

from nanochat_jax import files
from nanochat_jax.evals.compare import Pair, compare, table
from scripts import eval as program


def answers(folder, task, right, *, rows="same", **first):
    """`questions` among `first`: how many were asked, of which `right` are answered."""
    about = {"task": task, "questions": len(right), "rows": rows} | first
    lines = [{"question": i, "correct": bool(r)} for i, r in enumerate(right)]
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json_lines(folder / f"{task}.jsonl", [about, *lines])


@pytest.fixture
def two(base_dir):
    """A and B: ten questions of a task of each kind, and one task with other rows."""
    for name, right in (
        ("a", [1, 1, 0, 0, 1, 0, 1, 0, 0, 0]),
        ("b", [1, 0, 1, 1, 1, 1, 1, 0, 0, 1]),
    ):
        answers(base_dir / "eval" / name / "chat", "ARC-Easy", right)
        answers(base_dir / "eval" / name / "core", "copa", right, baseline=50.0)
        answers(base_dir / "eval" / name / "chat", "GSM8K", right, rows=name)
    return base_dir


def test_each_question_is_its_own_control(two):
    text = "\n".join(compare("a", "b", two))
    assert "| ARC-Easy | 10 | 40.0 % | 70.0 % | +30.0 |" in text and "| 1 | 4 |" in text
    # 0.3 / (1 - 0.25), and with a coin's chance 0.3 / 0.5
    assert "ChatCORE of these 1 tasks, B - A: +0.4000" in text
    assert "CORE of these 1 tasks, B - A: +0.6000" in text and "seven seeds" in text
    assert "left out, for the questions differ: GSM8K" in text


def test_an_evaluation_that_broke_off_is_told_as_one_and_not_as_other_questions(two):
    answers(two / "eval" / "a" / "chat", "MMLU", [1, 0, 1])
    answers(two / "eval" / "b" / "chat", "MMLU", [1], questions=3)
    lines = compare("a", "b", two)
    assert lines[-2:] == [
        "left out, for the questions differ: GSM8K",
        "left out, for not all questions are answered (the same scripts.eval command answers the "
        "rest): MMLU (A 3, B 1 of 3)",
    ]
    for name in ("c", "d"):
        answers(two / "eval" / name / "chat", "MMLU", [1, 0], questions=3)
    with pytest.raises(ValueError, match=r"whole.*; for not all .* MMLU \(A 2, B 2 of 3\)$"):
        compare("c", "d", two)


def test_the_interval_is_that_of_resampled_questions():
    pair = Pair("x", both=300, only_a=40, only_b=60, neither=600, baseline=0.0)
    marks = np.repeat([0, -1, 1, 0], [300, 40, 60, 600])
    rng = np.random.default_rng(1)
    slow = [rng.choice(marks, len(marks)).mean() for _ in range(4000)]
    quick = pair.resampled(np.random.default_rng(0))
    assert np.std(quick) == pytest.approx(np.std(slow), rel=0.05)
    assert np.quantile(quick, [0.025, 0.975]) == pytest.approx([0.0, 0.04], abs=2e-3)
    assert pair.difference == pytest.approx(0.02) and np.mean(quick) == pytest.approx(
        0.02, abs=1e-3
    )


@pytest.mark.parametrize(
    "only_a, only_b, verdict", [(10, 14, "no difference"), (10, 60, "a difference")]
)
def test_noise_is_called_noise(only_a, only_b, verdict):
    lines = table([Pair("x", 500, only_a, only_b, 400, 25.0)], "ChatCORE")
    assert lines[-1].split(": ")[-1].startswith(verdict)


def test_what_cannot_be_compared_is_told_with_what_there_is(two, capsys):
    assert program.main(["compare", "a", "b"]) == 0
    assert "B - A" in capsys.readouterr().out
    for argv, told in (
        (["compare", "a", "c"], "found a, b"),
        (["compare", "a"], "required"),
    ):
        with pytest.raises(SystemExit) as stop:
            program.main(argv)
        assert stop.value.code == 2 and told in capsys.readouterr().err
    answers(two / "eval" / "c" / "chat", "MMLU", [1])
    with pytest.raises(
        ValueError, match="no task in common that both answered whole, of the same questions$"
    ):
        compare("a", "c", two)
