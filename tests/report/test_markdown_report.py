"""The report card as Markdown: sections in order, a table of all scores, the wall clock."""

import json
import logging
import re

import numpy as np
import pytest

from nanochat_jax import report
from nanochat_jax.evals.chatcore.catalog import BASELINES
from nanochat_jax.evals.probes import APART, KINDS
from nanochat_jax.report import about, stored
from nanochat_jax.report.machine import hourly_rate
from nanochat_jax.results import EVALUATION, ORDER, TRAINING, Check, Exchange, Score, Section
from scripts.report import main
from tests.report.world import write_run

SCORES = [
    Score("val bpb", 0.3, lower_is_better=True),
    Score("probe: identity", 0.975, "share", 0.871, 0.996, n=40, count_shown=True),
    Score("mean of probes", 0.801, "share"),
    Score("ARC-Easy", 0.315, "share", 0.29, 0.341, n=400, chance=0.25, also={"pass@2": 0.4}),
    Score("CORE (21 of 22 tasks)", 0.1234, low=0.1134, high=0.1334),
]

EXCHANGES = [
    Exchange("fact", "who?", "me", True),
    Exchange("a story", "tell", "Once."),
    Exchange(
        "sum", "1+1?",
        "<|python_start|>1*1<|python_end|><|output_start|>1<|output_end|>So 1.", False, "So 2.",
    ),
]  # fmt: skip


def rewrite(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_sections_stand_in_order_and_the_summary_holds_every_score(tmp_path):
    report.reset(tmp_path)
    doubts = [Check("ARC-Easy", "it may be guessing", sound=False)]
    report.write(tmp_path, Section(EVALUATION["sft"], {"step": 3}, scores=SCORES, checks=doubts))
    base = Section(EVALUATION["base"], scores=[Score("val bpb", 0.5, lower_is_better=True)])
    report.write(tmp_path, base)
    figures = {"depth": 4, "tokens": 1234567, "lr": 0.02}
    report.write(tmp_path, Section(TRAINING["base"], figures=figures))
    text = report.generate(tmp_path, tmp_path).read_text()
    titles = re.findall("^## (.*)$", text, re.MULTILINE)
    assert titles == [
        "Summary", "Environment", "Base model training", "Base model evaluation",
        "Chat evaluation sft",
    ]  # fmt: skip
    assert "| val bpb | 0.5000 | - | 0.3000 | - |" in text
    assert "| probe: identity | - | - | 97.5% (n=40) | - |" in text
    assert "- SFT, ARC-Easy: it may be guessing" in report.summary(tmp_path)
    assert "\n- ARC-Easy: it may be guessing\n" in text
    assert "- tokens: 1,234,567" in text and "- lr: 0.0200" in text
    assert re.search(r"Total wall clock time: 0m0\ds", text)
    assert (tmp_path / "report.md").read_text() == text
    assert report.summary(tmp_path) in text
    rows = [line for line in report.summary(tmp_path).splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| Metric", "| CORE (21 of 22 tasks)", "| val bpb", "| ARC-Easy", "| probe: identity",
        "| mean of probes",
    ]  # fmt: skip


def test_a_section_lists_its_scores_settings_figures_details_and_texts(tmp_path):
    section = Section(
        EVALUATION["sft"], {"mesh": "1"}, {"step": 3}, SCORES, SCORES[3:4], ["- a note"],
        EXCHANGES,
    )  # fmt: skip
    report.write(tmp_path, section)
    text = report.generate(tmp_path, tmp_path).read_text()
    text = text[text.index("## Chat") :]
    head, body = text.split("\n\n", 1)
    assert re.fullmatch(r"## Chat evaluation sft\ntimestamp: \d{4}(-\d\d){2} \d\d(:\d\d){2}", head)
    assert body == (
        "* val bpb: 0.3000\n* probe: identity: 97.5% (n=40)\n* mean of probes: 80.1%\n"
        "* ARC-Easy: 31.50% (29.0 to 34.1)\n* CORE (21 of 22 tasks): 0.1234 (±0.0100)\n\n"
        "- mesh: 1\n\n- step: 3\n\n"
        "| task | accuracy % | 95 % interval | centered | n | pass@2 % |\n"
        "|---|---|---|---|---|---|\n"
        "| ARC-Easy | 31.50 | 29.0 to 34.1 | 0.0867 | 400 | 40.00 |\n\n- a note\n\n"
        "- sum, wrong: `1+1?` -> `[1*1=1] So 1.` (expected: `So 2.`)\n"
        "- fact, right: `who?` -> `me`\n"
        "- a story: `tell` -> `Once.`\n"
    )


def test_the_report_opens_with_what_the_last_stage_says_then_scores(tmp_path):
    report.write(tmp_path, Section(EVALUATION["mid"], exchanges=[Exchange("x", "q", "no", True)]))
    report.write(tmp_path, Section(EVALUATION["sft"], scores=SCORES, exchanges=EXCHANGES))
    text = report.generate(tmp_path, tmp_path).read_text()
    said, scores = text.index("## What it says now\n\n- sum, wrong: "), text.index("## Summary")
    assert said < scores < text.index("## Environment") and "2 cores" not in text[said:scores]
    assert re.match(r"# nanochat-jax report\n\n\d{4}-\d\d-\d\d \d\d:\d\d · ", text)
    assert "- val bpb: bits per byte, lower is better: of documents it was not" in text


def test_every_score_that_we_make_is_explained():
    made = [*BASELINES, *(f"probe: {kind}" for kind in (*KINDS, *APART)), "mean of probes", "CORE",
            "CORE (21 of 22 tasks)", "train bpb", "val bpb", "ChatCORE metric"]  # fmt: skip
    assert [name for name in made if not about.line(name)] == []


def test_what_stages_took_is_their_own_time_and_not_that_until_a_later_evaluation(tmp_path):
    report.reset(tmp_path)
    rewrite(tmp_path / "report" / "header.json", started="2026-01-02 03:00:00")
    report.write(tmp_path, Section("Data"))
    report.write(tmp_path, Section(TRAINING["base"]), 100.0)
    report.write(tmp_path, Section(EVALUATION["base"]), 25.0)
    report.write(tmp_path, Section(TRAINING["rl"]), 999.0)
    assert "Total wall clock time: 2m05s" in report.generate(tmp_path, tmp_path).read_text()


def test_a_section_on_disk_is_json_and_comes_back_whole(tmp_path):
    figures = {"rate": np.float32(0.5), "count": np.int64(3), "none": None, "list": (1, "a")}
    section = Section(EVALUATION["base"], figures=figures, scores=SCORES, texts=["\ud83d half"])
    report.write(tmp_path, Section(EVALUATION["base"], figures=figures, scores=SCORES))
    value = json.loads((tmp_path / "report" / "base-model-evaluation.json").read_text())
    assert value["section"]["figures"] == {"rate": 0.5, "count": 3, "none": None, "list": [1, "a"]}
    assert value["section"]["scores"][0] == {
        "name": "val bpb", "value": 0.3, "lower_is_better": True,
    }  # fmt: skip
    assert stored.read(tmp_path)[EVALUATION["base"]].section.scores == SCORES
    report.write(tmp_path, section)  # half a character, which a model can write
    assert "half" in report.generate(tmp_path, tmp_path).read_text()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("{", "Expecting"),
        ("[]", "should be a dictionary"),
        ('{"section": {"title": 3}}', "section.title: .* valid string"),
        ('{"section": {"title": "x", "scores": {"a": 1}}}', "section.scores: "),
        ('{"section": {"title": "x", "scores": [{"name": "y"}]}}', "scores.0.value: .*required"),
        ('{"section": {"title": "x"}, "written": "today"}', "written: .* valid date"),
        ("\udcff", "can't decode byte"),
    ],
)
def test_a_damaged_section_is_named_and_left_out(tmp_path, caplog, damage, named):
    report.write(tmp_path, Section(TRAINING["base"], texts=["kept"]))
    (tmp_path / "report" / "midtraining.json").write_text(damage, errors="surrogateescape")
    with caplog.at_level(logging.WARNING):
        text = report.generate(tmp_path, tmp_path).read_text()
    assert "kept" in text and "## Midtraining" not in text
    assert re.search(f"midtraining.json is damaged .*{named}", caplog.text)


def test_a_score_that_is_no_number_costs_no_other(tmp_path, caplog):
    values = {"val bpb": float("nan"), "train bpb": float("inf"), "CORE": np.float32(0.25)}
    scores = [Score(name, value) for name, value in values.items()]
    figures = {"Final loss": float("nan"), "Steps": np.int64(7)}
    report.write(tmp_path, Section(EVALUATION["base"], figures=figures, scores=scores))
    text = report.generate(tmp_path, tmp_path).read_text()
    assert "* CORE: 0.2500" in text and "* val bpb: nan" in text and "* train bpb: inf" in text
    assert "- Steps: 7" in text and "- Final loss: nan" in text and not caplog.records


def test_a_reset_forgets_the_sections_of_an_earlier_run(tmp_path):
    assert not report.begun(tmp_path)
    report.write(tmp_path, Section(TRAINING["mid"], texts=["bygone days"]))
    assert report.has(tmp_path, "Midtraining") and "Midtraining" in ORDER
    report.reset(tmp_path)
    assert report.begun(tmp_path) and not report.has(tmp_path, "Midtraining")
    report.write(tmp_path, Section(TRAINING["sft"], texts=["these days"]))
    text = report.generate(tmp_path, tmp_path).read_text()
    assert "these days" in text and "bygone days" not in text


def test_a_report_of_checkpoints_alone_still_tells_of_the_machine(tmp_path):
    write_run(tmp_path, "base")
    text = report.generate(tmp_path, tmp_path).read_text()
    assert "- Python: 3." in text and "Total wall clock time: unknown" in text


def test_where_there_is_no_run_a_good_report_is_not_written_over(tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    good = tmp_path / "here" / "report.md"
    good.write_text("good")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "typo"))
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2 and "no run to report on" in capsys.readouterr().err
    assert good.read_text() == "good" and not (tmp_path / "typo").exists()


def test_the_price_of_the_machine_is_kept_and_gives_the_cost(tmp_path):
    report.reset(tmp_path)
    rewrite(tmp_path / "report" / "header.json", started="2026-01-02 03:00:00")
    report.write(tmp_path, Section("Data", figures={"shards": 3}))
    rewrite(tmp_path / "report" / "data.json", written="2026-01-02 05:30:00")
    for price in (24.0, None):
        text = report.generate(tmp_path, tmp_path, price=price).read_text()
        assert "- Hourly rate: $24.00/hour\n" in text
        assert "Total wall clock time: 2h30m\nTotal cost: $60.00, at $24.00 an hour" in text
    with pytest.raises(ValueError, match="dollars per hour"):
        report.generate(tmp_path, tmp_path, price=-1.0)


def test_gpus_cost_what_the_original_guesses():
    assert hourly_rate(["NVIDIA H100 80GB HBM3"] * 8) == 24.0
    assert hourly_rate(["NVIDIA A100-SXM4-80GB", "Tesla V100", "NVIDIA L4"]) == 1.79 + 0.55 + 2.0
