"""The report card: sections in order, a summary table of all scores, the wall clock."""

import re

import pytest

from nanochat_jax import report
from nanochat_jax.report.machine import hourly_rate


def test_sections_stand_in_order_and_the_summary_holds_every_score(tmp_path):
    report.reset(tmp_path)
    scores = {"val bpb": "0.3000", "probe: identity": "97.5% (n=40)", "mean of probes": "80.1%"}
    report.log(tmp_path, "Chat evaluation sft", [report.score_lines(scores), {"step": 3}])
    report.log(tmp_path, "Base model evaluation", [report.score_lines({"val bpb": "0.5000"})])
    report.log(tmp_path, "Base model training", [{"depth": 4, "tokens": 1234567, "lr": 0.02}])
    path = report.generate(tmp_path, tmp_path)
    text = path.read_text()
    titles = re.findall("^## (.*)$", text, re.MULTILINE)
    assert titles == [
        "Environment", "Base model training", "Base model evaluation", "Chat evaluation sft",
        "Summary",
    ]  # fmt: skip
    assert "| val bpb | 0.5000 | - | 0.3000 | - |" in text
    assert "| probe: identity | - | - | 97.5% (n=40) | - |" in text
    assert "- tokens: 1,234,567" in text and "- lr: 0.0200" in text
    assert re.search(r"Total wall clock time: 0m0\ds", text)
    assert (tmp_path / "report.md").read_text() == text
    rows = [line for line in report.summary(path).splitlines() if line.startswith("| ")]
    assert rows[1].startswith("| val bpb") and rows[-1].startswith("| mean of probes")


def test_a_reset_forgets_the_sections_of_an_earlier_run(tmp_path):
    report.log(tmp_path, "Midtraining", ["bygone days"])
    assert report.has(tmp_path, "Midtraining")
    report.reset(tmp_path)
    assert not report.has(tmp_path, "Midtraining")
    assert "bygone days" not in report.generate(tmp_path, tmp_path).read_text()


def test_a_report_without_any_section_still_tells_of_the_machine(tmp_path):
    text = report.generate(tmp_path, tmp_path).read_text()
    assert "- Python: 3." in text and "Total wall clock time: unknown" in text


def test_the_price_of_the_machine_is_kept_and_gives_the_cost(tmp_path):
    report.reset(tmp_path)
    header = tmp_path / "report" / "header.md"
    header.write_text(re.sub("(?<=Run started: ).*", "2026-01-02 03:00:00", header.read_text()))
    report.log(tmp_path, "Data", [{"shards": 3}])
    section = tmp_path / "report" / "data.md"
    section.write_text(re.sub("(?<=timestamp: ).*", "2026-01-02 05:30:00", section.read_text()))
    for price in (24.0, None):
        text = report.generate(tmp_path, tmp_path, price=price).read_text()
        assert "- Hourly rate: $24.00/hour" in text
        assert "Total wall clock time: 2h30m\nTotal cost: $60.00, at $24.00 an hour" in text
    with pytest.raises(ValueError, match="dollars per hour"):
        report.generate(tmp_path, tmp_path, price=-1.0)


def test_gpus_cost_what_the_original_guesses():
    assert hourly_rate(["NVIDIA H100 80GB HBM3"] * 8) == 24.0
    assert hourly_rate(["NVIDIA A100-SXM4-80GB", "Tesla V100", "NVIDIA L4"]) == 1.79 + 0.55 + 2.0
