"""The page with the live model: used by keyboard, read by all, honest when broken."""

import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from built_book import Book
from test_browser import TOO_WIDE, Visit, set_theme, violations, visit

__all__ = ["violations", "visit"]  # fixtures

PAGE = "book/live.html"
WRITTEN = "document.querySelector('.tf-live-verdict p')"


def load(page: Any) -> Any:
    """Load the model by keyboard, and wait until the page can be used."""
    page.get_by_role("button", name="Load the model").focus()
    page.keyboard.press("Enter")
    page.get_by_label("From").wait_for()
    return page


def translate(page: Any, source: str, target: str, day: str = "2026-03-03") -> str:
    """Translate a date at once, and return what was written."""
    page.emulate_media(reduced_motion="reduce")
    page.get_by_label("From").select_option(source)
    page.get_by_label("To", exact=True).select_option(target)
    page.get_by_label("Day", exact=True).fill(day)
    page.get_by_label("Day", exact=True).dispatch_event("change")
    page.get_by_role("button", name="Translate").click()
    page.wait_for_function(WRITTEN)
    return page.locator(".tf-live-written").inner_text()


def test_from_start_to_a_date_by_keyboard_alone(visit: Visit) -> None:
    page = load(visit.open(PAGE))
    assert page.get_by_label("From").evaluate("one => one === document.activeElement")
    page.keyboard.type("Deu")
    page.keyboard.press("Tab")
    page.keyboard.type("fra")
    for _ in range(20):  # past the day to the text, and replace it
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "text":
            break
    page.keyboard.press("Control+A")
    page.keyboard.type("Montag, 20. Juli 2043")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Translate
    page.wait_for_function(WRITTEN, timeout=30_000)
    assert page.locator(".tf-live-written").inner_text() == "lundi 20 juillet 2043"
    assert "Right" in page.locator(".tf-live-verdict").inner_text()
    assert visit.troubles == []


def test_tokens_appear_one_by_one_unless_motion_is_unwanted(visit: Visit) -> None:
    page = load(visit.open(PAGE))
    watch = """() => { window.lengths = []; new MutationObserver(() =>
        window.lengths.push(document.querySelector('.tf-live-written').textContent.length)
    ).observe(document.querySelector('.tf-live-written'), {childList: true}); }"""
    page.evaluate(watch)
    page.get_by_role("button", name="Translate").click()
    page.wait_for_function(WRITTEN, timeout=30_000)
    lengths = page.evaluate("window.lengths")
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 5
    page.evaluate("window.lengths.length = 0")
    translate(page, "en", "de")
    assert len(set(page.evaluate("window.lengths"))) == 1


def test_attention_is_shown_for_the_token_in_focus(visit: Visit) -> None:
    page = load(visit.open(PAGE))
    translate(page, "en", "de")
    tokens = page.get_by_role("group", name="It writes").get_by_role("radio")
    tokens.first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert tokens.first.is_checked()
    sentence = page.locator(".tf-live-seen")
    assert sentence.inner_text().startswith(
        "Writing Dienstag, this head looks most at "
    )
    shares = page.get_by_role("group", name="It reads").locator(".tf-live-share")
    first = shares.all_inner_texts()
    assert 95 < sum(number(text) for text in first) < 105
    # Hidden by the causal mask: all that it has not written yet.
    written = page.get_by_role("group", name="It writes").locator(".tf-live-share")
    texts = [text for text in written.all_inner_texts() if text]
    assert number(texts[0]) == 100
    assert set(texts[1:]) == {"—"}

    page.get_by_label("Head", exact=True).select_option("2")
    second = shares.all_inner_texts()
    assert second != first
    page.get_by_role("group", name="It reads").get_by_role("radio").nth(2).focus()
    page.keyboard.press("Space")
    assert sentence.inner_text().startswith("Reading Tuesday, this head looks most at")
    assert set(written.all_inner_texts()) == {""}  # the encoder sees nothing of it


def number(text: str) -> float:
    return float(re.sub(r"[^\d.]", "", text))


def test_a_pointer_over_a_token_shows_its_attention(visit: Visit) -> None:
    page = load(visit.open(PAGE))
    translate(page, "en", "de")
    shares = page.get_by_role("group", name="It reads").locator(".tf-live-share")
    chosen = shares.all_inner_texts()
    page.get_by_role("group", name="It writes").locator("label").nth(4).hover()
    assert shares.all_inner_texts() != chosen
    page.mouse.move(0, 0)
    assert shares.all_inner_texts() == chosen


def test_this_token_in_every_head(visit: Visit) -> None:
    page = load(visit.open(PAGE))
    translate(page, "en", "de")
    page.get_by_text("This token in every head").click()
    rows = page.locator(".tf-live-heads").first.locator("tbody tr")
    assert rows.count() == 2 * 4
    for row in rows.all():
        cells = [int(text) for text in row.locator("td").all_inner_texts()]
        assert 92 <= sum(cells) <= 108  # each is rounded


@pytest.mark.parametrize("part", ["Positions", "Causal mask", "Cross-attention"])
def test_without_a_part_the_output_changes_and_comes_back(
    visit: Visit, part: str
) -> None:
    page = load(visit.open(PAGE))
    whole = translate(page, "ar", "de", "1954-10-13")
    assert whole == "Mittwoch, 13. Oktober 1954"
    page.get_by_label(part).focus()
    page.keyboard.press("Space")
    broken = page.locator(".tf-live-written")
    page.wait_for_function(
        f"document.querySelector('.tf-live-written').textContent !== '{whole}'"
    )
    verdict = page.locator(".tf-live-verdict")
    verdict.get_by_text(f"Off: {part.lower()}").wait_for()
    assert "Wrong" in verdict.inner_text()
    assert whole in verdict.inner_text()
    page.get_by_role("button", name="Everything on").click()
    verdict.get_by_text("Right").wait_for()
    assert broken.inner_text() == whole


def test_a_head_that_is_off_looks_at_nothing(visit: Visit) -> None:
    page = load(visit.open(PAGE))
    translate(page, "en", "de")
    page.get_by_label("Decoder, to what is read").uncheck()
    page.locator(".tf-live-verdict").get_by_text("cross head 1 of layer 1").wait_for()
    shares = page.get_by_role("group", name="It reads").locator(".tf-live-share")
    assert {number(text) for text in shares.all_inner_texts()} == {0}
    assert "looks most at nothing of what is read" in (
        page.locator(".tf-live-seen").inner_text()
    )


def test_beams_are_searched_and_shown(visit: Visit) -> None:
    page = load(visit.open(PAGE))
    page.get_by_label("Beam search, 4 beams").check()
    assert translate(page, "de", "en") == "Tuesday, March 3, 2026"
    page.get_by_text("What the beams held after each token").click()
    steps = page.locator("details > ol > li")
    assert steps.count() > 5
    assert steps.first.locator("li").count() == 4


def test_direction_and_language_are_those_of_the_text(visit: Visit) -> None:
    page = load(visit.open(PAGE))
    assert translate(page, "he", "ja") == "2026年3月3日火曜日"
    places = {
        "input[type=text]": ("he", "rtl"),
        ".tf-live-tokens >> nth=0": ("he", "rtl"),
        ".tf-live-tokens >> nth=1": ("ja", "ltr"),
        ".tf-live-written": ("ja", "ltr"),
    }
    for selector, expected in places.items():
        found = page.locator(f"#tf-live {selector}").evaluate(
            "one => [one.lang, one.dir]"
        )
        assert tuple(found) == expected, selector
    tokens = page.locator(".tf-live-tokens").first.locator("bdi")
    assert [one.get_attribute("lang") for one in tokens.all()[:3]] == ["ja", "he", "he"]
    boxes = [tokens.nth(n).bounding_box() for n in (0, 2)]
    assert boxes[0]["x"] > boxes[1]["x"]  # the first token stands on the right


def test_what_it_has_never_seen_is_said(visit: Visit) -> None:
    page = load(visit.open(PAGE))
    translate(page, "de", "en")
    text = page.get_by_label("What the model reads")
    said = page.locator(".tf-live-verdict")
    text.fill("Dienstag, 3. Mrz 2026")
    page.keyboard.press("Enter")
    said.get_by_text("has no token for “Mrz”").wait_for()
    assert "no date from 1950 to 2049 as CLDR writes it" in said.inner_text()
    status = page.locator("form").get_by_role("status")
    for wrong, message in (
        ("  ", "Write a date first."),
        ("3 " * 40, "the model reads 32"),
    ):
        text.fill(wrong)
        page.keyboard.press("Enter")
        status.get_by_text(message).wait_for()
    assert visit.troubles == []


def test_measured_and_compared_in_the_browser(visit: Visit) -> None:
    page = load(visit.open(PAGE))
    translate(page, "de", "en")
    page.get_by_role("button", name="Compare with PyTorch").click()
    said = page.get_by_text("none differs from PyTorch's")
    said.wait_for()
    assert float(said.inner_text().split("more than ")[1].rstrip(".")) < 1e-3
    page.get_by_role("button", name="Measure on 100 unseen dates").click()
    said = page.get_by_text("of 100 right, with everything on")
    said.wait_for(timeout=120_000)
    assert int(said.inner_text().split()[0]) >= 98
    assert visit.troubles == []


def test_used_page_is_accessible_and_fits(
    visit: Visit, violations: Callable[[Any], list[str]]
) -> None:
    page = load(visit.open(PAGE))
    page.get_by_label("Beam search, 4 beams").check()
    translate(page, "en", "ar")
    for details in page.locator("#tf-live details").all():
        details.locator("summary").click()
    for theme in ("light", "dark"):
        set_theme(page, theme)
        for width in (1280, 375, 320):
            page.set_viewport_size({"width": width, "height": 900})
            assert not page.evaluate(TOO_WIDE), f"{width} px is too narrow"
            assert violations(page) == [], f"{width} px, {theme}"
    assert visit.troubles == []


def test_the_page_weighs_little_until_the_model_is_asked_for(visit: Visit) -> None:
    sizes: dict[str, int] = {}  # as a server sends them, compressed
    visit.page.on(
        "response", lambda one: sizes.update({one.url: len(zlib.compress(one.body()))})
    )
    page = visit.open(PAGE)
    page.wait_for_load_state("networkidle")
    assert any("transformer.js" in url for url in sizes)
    assert not any("model.js" in url for url in sizes)
    assert sum(sizes.values()) < 1_000_000
    load(page)
    live = sum(size for url, size in sizes.items() if "/live/" in url)
    assert 400_000 < live < 1_500_000


# ---- where it cannot run ------------------------------------------------------------


@pytest.fixture
def copy(book: Book, tmp_path: Path) -> Path:
    """Return the files of the page in a folder, to be damaged."""
    (tmp_path / "book").mkdir()
    shutil.copy(book.html / PAGE, tmp_path / PAGE)
    shutil.copytree(book.html / "_static", tmp_path / "_static")
    return tmp_path


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def test_it_runs_from_a_disk(book: Book, page: Any) -> None:
    page.goto((book.html / PAGE).as_uri())
    assert translate(load(page), "de", "en") == "Tuesday, March 3, 2026"


def test_a_missing_model_is_said_and_can_be_asked_for_again(
    copy: Path, page: Any
) -> None:
    model = copy / "_static/live/model.js"
    content = model.read_bytes()
    model.unlink()
    page.goto((copy / PAGE).as_uri())
    button = page.get_by_role("button", name="Load the model")
    button.click()
    page.get_by_text("The model cannot run: the file model.js is missing").wait_for()
    assert button.is_enabled()
    model.write_bytes(content)
    assert translate(load(page), "de", "en") == "Tuesday, March 3, 2026"


def test_a_damaged_model_is_said(copy: Path, page: Any) -> None:
    model = copy / "_static/live/model.js"
    text = model.read_text("utf-8")
    place = text.index('"weights":') + 200_000
    other = "A" if text[place] != "A" else "B"
    model.write_text(text[:place] + other + text[place + 1 :], encoding="utf-8")
    page.goto((copy / PAGE).as_uri())
    page.get_by_role("button", name="Load the model").click()
    page.get_by_text("The model cannot run: the weights are damaged").wait_for()


def test_a_page_without_its_script_says_so(copy: Path, page: Any) -> None:
    (copy / "_static/live/transformer.js").unlink()
    page.goto((copy / PAGE).as_uri())
    page.get_by_text("the model cannot run").wait_for()
    assert page.get_by_role("button", name="Load the model").count() == 0


def test_without_javascript_it_says_so_and_shows_its_figures(
    browser: Any, address: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}{PAGE}")
    assert page.get_by_text("JavaScript is switched off").is_visible()
    assert page.locator("tbody tr").count() == 16
    context.close()
