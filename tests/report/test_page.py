"""The page of the report: whole, harmless, and content with what there is."""

import html.parser
import re

import pytest

from nanochat_jax import report
from nanochat_jax.report import score_table
from nanochat_jax.report.markdown import render
from nanochat_jax.results import EVALUATION, Score, Section
from tests.report.world import EVIL, write_base, write_run

VOID = {"meta", "input", "br"}


class Reader(html.parser.HTMLParser):
    """Counts elements, collects attributes, and holds that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self._open = [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base")).read_text()


def test_the_page_is_one_well_formed_file_that_loads_nothing(text):
    page = Reader(text)
    assert page.tags.count("script") == 1 and not {"link", "img", "iframe"} & set(page.tags)
    assert not [k for k, _ in page.attributes if k.startswith("on") or k == "src"]
    assert all(v.startswith("#") for k, v in page.attributes if k == "href")
    assert "url(" not in text and "@import" not in text
    assert any("default-src 'none'" in (v or "") for k, v in page.attributes if k == "content")


def test_what_models_and_people_wrote_stays_text(tmp_path):
    evil = write_base(tmp_path, EVIL).read_text()
    page, harmless = Reader(evil), Reader(write_base(tmp_path / "other").read_text())
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert {k for k, _ in page.attributes} == {k for k, _ in harmless.attributes}
    assert evil.count("onerror=alert(2)&gt;") > 10
    assert page.attributes.count(("dir", "auto")) > 10  # some of it may be Arabic or Hebrew
    assert "`|?" in evil  # half a character, which no file can hold


def test_every_stage_has_its_curves_samples_and_settings(text):
    for title in (
        "Validation, bits per byte, of ",
        "Learning rate",
        "Tokens per second",
    ):
        assert text.count(f"<b>{title}") == 4
    assert text.count("<b>Training loss") == 3 and text.count("<b>Loss of the policy") == 1
    assert text.count("What it wrote on the way") == 4
    assert "<b>One day,</b> it rained." in text


def test_settings_that_differ_from_the_recipe_are_told_beside_its_own(tmp_path):
    write_run(tmp_path, "base", recipe="current", depth=4, window_pattern="SSSL")
    report.generate(tmp_path, tmp_path)
    shown = (tmp_path / "report" / "report.html").read_text()
    assert ">depth</th><td>4</td><td>20</td>" in shown
    assert ">window_pattern</th>" not in shown  # the recipe's own


def test_time_and_cost_stand_at_the_top(text):
    assert "at $12.00 an hour" in text and "<b>1m30s</b>" not in text
    assert text.count("<dd>1m30s</dd>") == 4 and "from text to chat" in text


def test_the_page_opens_with_what_the_assistant_says_wrong_ones_first(text):
    said = text[text.index('id="says"') : text.index('id="scores"')]
    assert "Reinforcement learning d2, step 60" in said and "36 of 71 questions" in said
    marks = re.findall('<article class="exchange (\\w+)"', said)
    assert marks[:5] == ["bad", "bad", "good", "good", "told"]  # then all, kind by kind
    assert marks[5:].count("bad") == 35 and len(marks) == 5 + 60 + 1
    assert '<code class="chip">48+37 = <b>85</b></code>' in said
    assert "✗ wrong, expected: it rained.<small>sum</small>" in said.replace("\n", "")
    assert '<a href="#says-sum">sum <b>35/70</b></a>' in said and 'id="says-sum"' in said
    assert "35 of 70 right; 60 are shown" in said


def test_a_page_without_questions_opens_with_scores(tmp_path):
    score = Score("val bpb", 0.3, lower_is_better=True)
    report.write(tmp_path, Section(EVALUATION["base"], scores=[score]))
    report.generate(tmp_path, tmp_path)
    shown = (tmp_path / "report" / "report.html").read_text()
    assert 'id="says"' not in shown and 'id="scores"' in shown


def test_the_bar_of_time_adds_up_with_what_all_else_took(text):
    told = re.findall(r"<b>([^<]+)</b> <span>(\d+)m(\d+)s</span>", text)
    seconds = {name: 60 * int(m) + int(s) for name, m, s in told}
    assert len(seconds) == 5 and seconds.pop("Reinforcement learning") == 90
    assert sum(seconds.values()) == 3 * 120  # of base, mid and sft, as at the top
    assert "<b>6m00s</b><span>from text to chat" in text


def test_bits_per_byte_say_what_they_are_of(text):
    for stage, of in (("base", "documents"), ("mid", "chats, every word"),
                      ("sft", "chats, the replies alone")):  # fmt: skip
        part = text[text.index(f'<section id="{stage}"') :].split("</section>")[0]
        assert f"Best bits per byte, of {of}</dt>" in part
        assert f"<b>Validation, bits per byte, of {of}" in part
    assert "of documents it was not trained on, also after it has learnt to chat" in text


def test_the_note_tells_of_marks_that_are_there():
    plain = {"val bpb": {"base": Score("val bpb", 0.5, lower_is_better=True)}}
    assert "note" not in score_table.table(plain)
    sure = {"ARC-Easy": {"sft": Score("ARC-Easy", 0.3, "share", 0.29, 0.34, chance=0.25)}}
    assert "95 % interval. A dotted mark" in score_table.table(sure | plain)


def test_rollouts_are_thinned_and_their_number_is_told(tmp_path):
    write_run(tmp_path, "rl", steps=100)
    report.generate(tmp_path, tmp_path)
    shown = (tmp_path / "report" / "report.html").read_text()
    assert "40 of 100 steps" in shown and shown.count('<li class="bad">') == 20 * 8
    steps = [int(s) for s in re.findall(r'id="step-(\d+)"', shown)]
    assert len(steps) == 40 and steps[0] == 0 and steps[-1] == 99 and steps == sorted(steps)


def test_missing_and_damaged_pieces_are_left_out(tmp_path):
    def shown():
        report.generate(tmp_path, tmp_path)
        return Reader((tmp_path / "report" / "report.html").read_text()).tags.count("svg")

    directory = write_run(tmp_path, "base")
    whole = shown()
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 60, "train/lo')
    assert shown() == whole > 3
    (directory / "000060" / "meta.json").write_text("{")
    assert shown() == whole
    (directory / "metrics.jsonl").write_text('{"step": 0, "train/loss": NaN}\n')
    assert shown() == 0
    rl = write_run(tmp_path, "rl", steps=20)
    (rl / "rollouts" / "000003.jsonl").write_text('[]\n3\n{}\n{"reward": "x", "reply": 1}\n')
    (rl / "rollouts" / "000004.jsonl").write_text('{"step": 4')
    assert shown() > 3


def test_the_latest_run_of_a_stage_is_shown(tmp_path):
    import os

    old = write_run(tmp_path, "base")
    old.rename(old.parent / "old")
    os.utime(old.parent / "old" / "metrics.jsonl", (1, 1))
    write_run(tmp_path, "base")
    report.generate(tmp_path, tmp_path)
    assert "<h1>d2</h1>" in (tmp_path / "report" / "report.html").read_text()


def test_a_score_is_shown_with_its_interval_and_what_guessing_gives():
    sure = Score("ARC-Easy", 0.315, "share", 0.29, 0.341, n=400, chance=0.25)
    drawn = score_table.table({"ARC-Easy": {"sft": sure}})
    assert "<span>31.5%</span><small>29.0–34.1</small>" in drawn
    assert 'title="31.50% (29.0 to 34.1)"' in drawn
    assert 'class="range" style="left:29.00%;width:5.10%"' in drawn
    assert 'class="chance" style="left:25.00%"' in drawn


def test_the_best_stage_stands_out_by_what_is_better():
    lower = {s: Score("val bpb", v, lower_is_better=True) for s, v in (("base", 0.5), ("mid", 0.4))}
    higher = {s: Score("CORE", v) for s, v in (("base", 0.5), ("mid", 0.4))}
    drawn = score_table.table({"val bpb": lower, "CORE": higher})
    assert re.findall("<b>(.*?)</b>", drawn) == ["0.4000", "0.5000"]
    assert "<b>" not in score_table.table({"CORE": {"base": higher["base"]}})


def test_markdown_becomes_elements_and_nothing_else():
    made = render("## A\n- x `<b>`\n- y\n\n| a | b |\n|---|---|\n| <i> | 2 |\n\nwords\nmore\n---")
    assert made == (
        "<h4>A</h4><ul><li>x <code>&lt;b&gt;</code></li><li>y</li></ul>"
        '<div class="wide"><table><tr><th>a</th><th>b</th></tr>'
        "<tr><td>&lt;i&gt;</td><td>2</td></tr></table></div><p>words more</p>"
    )


def test_texts_are_escaped():
    assert render("<i title='\"'>") == "<p>&lt;i title=&#39;&#34;&#39;&gt;</p>"
