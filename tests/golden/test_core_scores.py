"""CORE scores as the original: losses, predictions, choices, right answers, accuracy."""

import pytest

from tests.golden.conftest import load_json
from tests.golden.core_files import cases, scored
from tests.golden.numbers import absolute


def both(path, n):
    """(golden, our scores, our grade) of each example of a result."""
    examples = load_json(path)["results"][n]["examples"]
    return [(g, s, m) for g, (s, m) in zip(examples, scored(path)[n], strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "n"), cases())
def test_losses_are_the_same(path, n):
    for golden, scores, _ in both(path, n):
        if "mean_losses" in golden:
            got, want = [s.nll.mean() for s in scores], golden["mean_losses"]
        else:
            got, want = scores[0].nll, golden["continuation_losses"]
        absolute(got, want, "core_loss")


@pytest.mark.slow
@pytest.mark.parametrize(("path", "n"), cases())
def test_choices_and_predictions_are_the_same(path, n):
    for golden, _, grade in both(path, n):
        if "pred_idx" in golden:
            assert (grade["chosen"], grade["gold"]) == (golden["pred_idx"], golden["gold"])
        else:
            assert grade["predicted"] == golden["predicted_tokens"]
            assert grade["wanted"] == golden["actual_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "n"), cases())
def test_right_answers_and_accuracy_are_the_same(path, n):
    right = [grade["correct"] for _, _, grade in both(path, n)]
    assert right == [golden["is_correct"] for golden, _, _ in both(path, n)]
    want = load_json(path)["results"][n]["accuracy"]
    assert sum(right) / len(right) == pytest.approx(want)
