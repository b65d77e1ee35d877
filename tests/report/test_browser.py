"""The report's page in a real browser, without a network. Needs Chromium and playwright."""

import re

import pytest

from tests import needs
from tests.report.world import EVIL, write_base

sync_api = needs.package("playwright.sync_api")
expect = sync_api.expect
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"), EVIL)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=needs.chromium(), args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, file):
    """The page on a screen; at the end it must have complained of nothing and asked for nothing."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    page = context.new_page()
    problems, requests = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert problems == [] and {url.split("#")[0] for url in requests} == {file.as_uri()}
    context.close()


def test_it_opens_offline_with_every_curve(page):
    assert page.locator("svg").count() >= 4 * 4
    assert page.locator("h2").all_inner_texts()[0].startswith("What it says now")
    page.get_by_role("link", name="sum 35/70").click()
    expect(page.locator("#says-sum .exchange.bad:visible")).to_have_count(35)


CUT = """[...document.querySelectorAll("header *, section *")].filter((e) =>
  getComputedStyle(e).overflowX === "hidden" && e.scrollWidth > e.clientWidth + 1).length"""


@pytest.mark.parametrize("width", [320, 375, 768])
def test_it_fits_a_phone_and_nothing_is_cut(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == 0
    within = "e => e.scrollWidth <= e.clientWidth + 1"
    assert all(one.evaluate(within) for one in page.locator("#scores .wide").all())


def test_the_value_under_the_pointer_is_told(page):
    page.locator("svg").first.hover()
    tip = page.locator(".tip:visible")
    expect(tip).to_have_count(1)
    expect(tip).to_have_text(re.compile("^step "))
    page.mouse.move(1, 1)
    expect(tip).to_have_count(0)


def test_a_step_s_rollouts_are_shown_alone_and_sifted(page):
    def shown(*, good, bad):  # waits: a page hears of its new address some time after the click
        expect(page.locator("li.good:visible")).to_have_count(good)
        expect(page.locator("li.bad:visible")).to_have_count(bad)

    shown(good=8, bad=0)  # the last step's
    page.locator(".strip a").nth(10).click()
    shown(good=0, bad=8)
    expect(page.locator("details.step:visible")).to_have_count(1)
    page.get_by_role("button", name="rewarded", exact=True).click()
    shown(good=0, bad=0)
    page.locator(".strip a").last.click()
    shown(good=8, bad=0)
    expect(page.locator("u:visible").first).to_have_text("85")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_in_both_themes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    style = "(e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor])(document.body)"
    text, ground = (sum(map(int, c[4:-1].split(","))) for c in page.evaluate(style))
    assert abs(text - ground) > 450 and (ground > text) == (scheme == "light")


def test_on_paper_every_part_is_unfolded_and_buttons_are_gone(page):
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("section > details:not(.step, .answers-of):not([open])")).to_have_count(0)
    expect(page.locator("header nav:visible, .choices:visible, .strip:visible")).to_have_count(0)
    expect(page.locator("svg:visible")).to_have_count(page.locator("svg").count())
    assert page.pdf().startswith(b"%PDF")
