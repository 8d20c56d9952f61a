"""The book in a browser: nothing fails, everything can be reached and read."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from built_book import Book, listed_pages

from tfcourse.course.ledger import load_ledger

PAGES = [*listed_pages(), "search"]
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
LEDGER = "book/ledger"
DRILL = "book/drill"
AXE = Path(__file__).with_name("axe.min.js").read_text(encoding="utf-8")

HEAVIEST = 1_000_000  # bytes of a page with all that it loads
WIDTHS = (320, 375, 640, 768, 1024, 1280, 1600)
# What axe looks at: a page as it opens, and one where everything was used. Together
# wide and narrow, light and dark; every run costs a second or two on a chapter.
FRESH_LOOKS = [(1280, "light"), (375, "dark")]
USED_LOOKS = [(1280, "dark"), (375, "light")]
# Of folded code the first: it is much, and all of it looks the same.
OPEN_ALL = """document.querySelectorAll('details').forEach(one => {
    one.open = !document.querySelector('.tf-code[open]') || !one.matches('.tf-code');
})"""
VIOLATIONS = """async () => (await axe.run({resultTypes: ['violations']})).violations
    .map(one => [one.id, one.nodes.map(node => node.html)])"""
# What scrolls gets its tab stop with the first frame after a resize (tf.js), and 0.3 s
# after other changes (the theme). A fast machine would look before.
TAB_STOPS = """() => [...document.querySelectorAll(
        'pre, .cell_output > .output, .pst-scrollable-table-container')]
    .every(one => one.tabIndex === 0 ||
        (one.scrollWidth <= one.clientWidth && one.scrollHeight <= one.clientHeight))"""
HREF = "location.href"  # playwright's own url is told late
TOO_WIDE = "() => document.documentElement.scrollWidth > window.innerWidth"


class Visit:
    """A browser's page, and what went wrong on it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.address = address
        self.troubles: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("request", self._request)
        page.on("response", self._response)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"{message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.troubles.append(f"request to {request.url}")

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.troubles.append(f"{response.status}: {response.url}")

    def open(self, path: str) -> Any:
        """Open a page, wait for its scripts and formulas, and return it."""
        self.page.goto(f"{self.address}{path}")
        self.page.wait_for_function("document.readyState === 'complete'")
        self.page.evaluate("window.MathJax?.startup?.promise")
        return self.page


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    """Return a fresh visit: light theme, 1280 pixels wide."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Visit(context.new_page(), address)
    context.close()


@pytest.fixture
def violations() -> Callable[[Any], list[str]]:
    """Return a function that runs axe on a page as it is."""

    def run(page: Any) -> list[str]:
        if not page.evaluate("'axe' in window"):
            page.evaluate(AXE)
        page.wait_for_function(TAB_STOPS)
        return page.evaluate(VIOLATIONS)

    return run


def set_theme(page: Any, theme: str) -> None:
    """Let the system ask for light or dark, and wait until the page has followed."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")


def use(page: Any) -> None:
    """Open the details of a page, answer its quizzes, filter its ledger."""
    page.evaluate(OPEN_ALL)
    for quiz in page.locator(".tf-quiz").all():
        quiz.locator("input").first.check()
        quiz.get_by_role("button", name="Check").click()
    for button in page.get_by_role("button", name="Hide the verdicts").all():
        button.click()
    for search in page.get_by_label("Find in the ledger").all():
        search.fill("the")
    if page.locator(".tf-drill").count():
        ask(page, "Chapter", "5 · Positional encoding", "Kind", "Whiteboard")
        page.keyboard.press("Space")


@pytest.mark.parametrize("path", PAGES)
def test_page_is_in_order(
    visit: Visit, violations: Callable[[Any], list[str]], path: str
) -> None:
    sizes: dict[str, int] = {}  # as a server sends them, compressed
    visit.page.on(
        "response", lambda one: sizes.update({one.url: len(zlib.compress(one.body()))})
    )
    page = visit.open(f"{path}.html")
    assert len(sizes) > 5
    assert sum(sizes.values()) < HEAVIEST, sizes
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert not page.evaluate(TOO_WIDE), f"{width} px is too narrow"
    for looks in (FRESH_LOOKS, USED_LOOKS):
        if looks is USED_LOOKS:
            use(page)
        for width, theme in looks:
            page.set_viewport_size({"width": width, "height": 900})
            set_theme(page, theme)
            assert violations(page) == [], f"{width} px, {theme}"
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    assert not page.evaluate(TOO_WIDE), "too narrow with everything open"
    assert visit.troubles == []


def test_a_violation_would_be_found(
    visit: Visit, violations: Callable[[Any], list[str]]
) -> None:
    page = visit.open("book/intro.html")
    page.evaluate("document.querySelector('.bd-article h1').style.color = '#eeeeee'")
    assert [name for name, _ in violations(page)] == ["color-contrast"]


def test_the_start_leads_to_the_landing_page(visit: Visit) -> None:
    page = visit.open("index.html")
    page.wait_for_url("**/book/intro.html")
    assert page.title().startswith("Start")


def test_there_is_one_search_and_it_finds(visit: Visit) -> None:
    page = visit.open("book/intro.html")
    assert page.locator(".search-button__button:visible").count() == 1
    page.set_viewport_size({"width": 375, "height": 900})
    assert page.locator(".search-button__button:visible").count() == 1
    page = visit.open("search.html?q=softmax")
    page.locator("#search-results li").first.wait_for()
    assert visit.troubles == []


@pytest.mark.parametrize("path", CHAPTERS)
def test_verdicts_can_be_hidden_by_keyboard(visit: Visit, path: str) -> None:
    page = visit.open(f"{path}.html")
    button = page.get_by_role("button", name="Hide the verdicts").first
    marks = page.locator(".tf-sentences .tf-mark")
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "true"
    assert not any(mark.is_visible() for mark in marks.all())
    lines = page.locator(".tf-sentences .tf-quote").evaluate_all(
        "all => all.map(one => getComputedStyle(one).textDecorationLine)"
    )
    assert set(lines) == {"none"}
    page.keyboard.press("Space")
    assert all(mark.is_visible() for mark in marks.all())


@pytest.mark.parametrize("path", CHAPTERS)
def test_quizzes_work_by_keyboard(visit: Visit, path: str) -> None:
    page = visit.open(f"{path}.html")
    quizzes = page.locator(".tf-quiz").all()
    assert quizzes
    for quiz in quizzes[:2]:
        answer_by_keyboard(page, quiz)
    assert visit.troubles == []


def answer_by_keyboard(page: Any, quiz: Any) -> None:
    """Ask for a verdict without an answer, with each wrong one, with the right one."""
    status, answer = quiz.get_by_role("status"), quiz.locator("details")
    options, check = quiz.get_by_role("radio"), quiz.get_by_role("button")
    key = int(str(quiz.get_attribute("data-key"))) - 1

    check.focus()
    page.keyboard.press("Enter")
    assert status.inner_text() == "Choose an answer first."

    page.keyboard.press("Space")  # the focus is on the first option
    for place in range(options.count()):
        if place:
            page.keyboard.press("ArrowDown")
        assert options.nth(place).is_checked()
        if place != key:
            page.keyboard.press("Enter")
            assert status.inner_text().startswith("Not this one.")
            assert answer.get_attribute("open") is None

    options.nth(key).focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert status.inner_text().startswith("Right.")
    assert answer.get_attribute("open") is not None


def shown(page: Any) -> int:
    """Return how many rows of the ledger are visible."""
    return page.locator(".tf-ledger tbody tr:visible").count()


def test_ledger_is_filtered_by_verdict(visit: Visit) -> None:
    page = visit.open(f"{LEDGER}.html")
    total, status = shown(page), page.get_by_role("status")
    assert status.inner_text() == f"{total} of {total} sentences"
    page.get_by_role("checkbox", name="Fails").focus()
    page.keyboard.press("Space")
    without = shown(page)
    assert 0 < without < total
    assert page.locator(".tf-ledger .tf-fails:visible").count() == 0
    assert status.inner_text() == f"{without} of {total} sentences"
    page.keyboard.press("Space")
    assert shown(page) == total


def test_ledger_is_filtered_by_chapter(visit: Visit) -> None:
    page = visit.open(f"{LEDGER}.html")
    page.get_by_label("Chapter").focus()
    page.keyboard.type("10b")
    headings = page.locator(".bd-article h2:visible")
    assert [text.rstrip("#") for text in headings.all_inner_texts()] == [
        "10b · Beyond text"
    ]
    rows = [one for one in load_ledger().claims.values() if one.chapter == "10b"]
    assert shown(page) == len(rows)
    total = len(load_ledger().claims)
    assert (
        page.get_by_role("status").inner_text() == f"{len(rows)} of {total} sentences"
    )


def test_the_address_keeps_the_filter_and_can_be_sent(visit: Visit) -> None:
    page = visit.open(f"{LEDGER}.html")
    page.get_by_label("Chapter").select_option("3")
    page.get_by_label("Evidence").select_option("measured")
    page.get_by_role("checkbox", name="Holds").uncheck()
    page.get_by_label("Find in the ledger").fill("weight of")
    sent = page.evaluate(HREF)
    query = "?find=weight+of&chapter=3&evidence=measured&verdict=depends,fails"
    assert sent == f"{visit.address}{LEDGER}.html{query}"
    status = page.get_by_role("status").inner_text()
    assert 0 < shown(page) < 22

    page.goto("about:blank")
    page = visit.open(sent.removeprefix(visit.address))
    assert page.get_by_role("status").inner_text() == status
    assert page.get_by_label("Find in the ledger").input_value() == "weight of"
    assert not page.get_by_role("checkbox", name="Holds").is_checked()

    for name in ("Depends", "Fails"):
        page.get_by_role("checkbox", name=name).uncheck()
    assert page.evaluate(HREF).endswith("&verdict=none")
    page.reload()
    assert shown(page) == 0
    assert visit.troubles == []


def test_an_address_that_makes_no_sense_filters_nothing(visit: Visit) -> None:
    page = visit.open(f"{LEDGER}.html?chapter=99&evidence=no&verdict=maybe&other=1")
    assert shown(page) == len(load_ledger().claims)
    for label in ("Chapter", "Evidence"):
        chosen = page.get_by_label(label).evaluate("one => one.selectedIndex")
        assert chosen == 0, label


def test_a_link_to_a_row_that_is_filtered_out_ends_the_filter(visit: Visit) -> None:
    page = visit.open(f"{LEDGER}.html?chapter=3&verdict=fails#C6")
    assert page.locator("tr:has(#C6)").is_visible()
    assert page.evaluate(HREF) == f"{visit.address}{LEDGER}.html#C6"
    page.get_by_label("Chapter").select_option("3")
    assert not page.locator("tr:has(#C6)").is_visible()
    page.evaluate("location.hash = '#C7'")
    page.locator("tr:has(#C7)").wait_for()
    assert page.get_by_label("Chapter").input_value() == ""


def test_ledger_is_filtered_by_evidence_and_words(visit: Visit) -> None:
    page = visit.open(f"{LEDGER}.html")
    total = shown(page)
    page.get_by_label("Evidence").focus()
    page.keyboard.press("c")  # for Cited
    cited = shown(page)
    assert 0 < cited < total
    assert cited == page.locator(".tf-ledger em:text-is('Cited.'):visible").count()

    page.keyboard.press("Home")  # any evidence
    page.get_by_label("Find in the ledger").focus()
    page.keyboard.type("encoder SELF-attention")
    texts = page.locator(".tf-ledger tbody tr:visible").all_inner_texts()
    assert texts
    assert all("encoder" in text.lower() for text in texts)
    assert all("self-attention" in text.lower() for text in texts)


def test_chapters_without_a_row_to_show_are_hidden(visit: Visit) -> None:
    page = visit.open(f"{LEDGER}.html")
    headings = page.locator(".bd-article h2:visible")
    contents = page.locator(".page-toc a:visible")
    assert headings.count() == contents.count() > 1
    page.get_by_label("Find in the ledger").fill("no row has these words")
    assert (headings.count(), contents.count(), shown(page)) == (0, 0, 0)


def test_tally_opens_the_ledger_filtered(visit: Visit) -> None:
    page = visit.open("book/intro.html")
    count = page.locator(".tf-tally .tf-fails strong").inner_text()
    page.locator(".tf-tally .tf-fails a").click()
    page.wait_for_url("**/ledger.html?verdict=fails")
    assert shown(page) == int(count)
    assert page.locator(".tf-ledger .tf-mark:visible:not(.tf-fails)").count() == 0
    assert not page.get_by_role("checkbox", name="Holds").is_checked()


def test_a_link_to_a_row_shows_and_marks_it(visit: Visit) -> None:
    page = visit.open(f"{LEDGER}.html?verdict=holds#C6")
    row = page.locator("tr:has(#C6)")
    assert row.is_visible()
    background = "one => getComputedStyle(one).backgroundColor"
    other = page.locator("tr:has(#C7)")
    assert row.evaluate(background) != other.evaluate(background)
    top = row.evaluate("one => one.getBoundingClientRect().top")
    assert 40 < top < 400


def test_rows_keep_their_roles_as_cards(visit: Visit) -> None:
    page = visit.open(f"{LEDGER}.html")
    table = page.get_by_role("table").first
    assert table.get_by_role("columnheader").count() == 4
    assert table.get_by_role("row").nth(1).get_by_role("cell").count() == 4


# ---- the drill ----------------------------------------------------------------------


def ask(page: Any, *fields: str) -> None:
    """Choose what to ask, as label and value in turn, and start the round."""
    for label, value in zip(fields[::2], fields[1::2], strict=True):
        page.get_by_label(label, exact=True).select_option(value)
    start = page.get_by_role("button", name="Start", exact=True)
    start.focus()
    page.keyboard.press("Enter")


def card(page: Any) -> str:
    """Return the id of the question on the card."""
    return str(page.locator(".tf-card .tf-item").get_attribute("id"))


def progress(page: Any) -> str:
    """Return what the form says of all questions."""
    return str(page.locator(".tf-drill form [role=status]").inner_text())


def test_a_round_asks_every_question_once_by_keyboard(visit: Visit) -> None:
    page = visit.open(f"{DRILL}.html")
    chapter = page.locator(".tf-item[id^=q-3-]")
    listed = chapter.evaluate_all("all => all.map(one => one.id)")
    assert len(listed) > 10
    ask(page, "Chapter", "3 · Attention")
    asked = []
    for place, _ in enumerate(listed):
        where = page.locator(".tf-card [role=status]").inner_text()
        assert where == f"Question {place + 1} of {len(listed)} · 3 · Attention"
        asked.append(card(page))
        page.keyboard.press("3")  # nothing is judged before the answer was seen
        assert card(page) == asked[-1]
        page.keyboard.press("Space")
        page.keyboard.press("123"[place % 3])
    assert sorted(asked) == sorted(listed)
    assert asked != listed
    assert not page.locator(".tf-card").is_visible()
    missed, half, knew = (len(listed[place::3]) for place in range(3))
    assert progress(page) == (
        f"Round over. Not yet: {missed}, Half: {half}, Knew it: {knew}. "
        f"{missed + half} to ask, in random order. Of all "
        f"{page.locator('.tf-item').count()} you knew {knew}, half {half}, "
        f"not yet {missed}."
    )
    assert page.evaluate("document.activeElement.textContent") == "Start"
    assert chapter.evaluate_all("all => all.map(one => one.id)") == listed
    assert chapter.locator(".tf-mark.tf-holds:text-is('Knew it')").count() == knew
    assert visit.troubles == []


def test_two_rounds_differ_in_order(visit: Visit) -> None:
    page = visit.open(f"{DRILL}.html")
    orders = []
    for _ in range(2):
        ask(page, "Kind", "Pushing back")
        orders.append([])
        for _ in range(10):
            orders[-1].append(card(page))
            page.keyboard.press("s")
        page.keyboard.press("Escape")
    assert len(set(orders[0])) == len(set(orders[1])) == 10
    assert orders[0] != orders[1]


def test_progress_outlives_the_page_until_it_is_cleared(visit: Visit) -> None:
    page = visit.open(f"{DRILL}.html")
    page.evaluate("localStorage.setItem('tf-drill', '{\"q-gone\": \"knew\"}')")
    ask(page, "Kind", "30 seconds")
    known = card(page)
    for key in ("Space", "3", "Space", "1", "Escape"):
        page.keyboard.press(key)
    number = page.locator(".tf-item").count()
    told = f"Of all {number} you knew 1, half 0, not yet 1."
    assert progress(page).endswith(told)
    page.reload()
    assert progress(page) == f"{number - 1} to ask, in random order. {told}"
    ask(page, "Kind", "30 seconds")
    rest = set()
    for _ in range(10):
        rest.add(card(page))
        page.keyboard.press("s")
    assert len(rest) == 10
    assert known not in rest

    clear = page.get_by_role("button", name="Clear my progress")
    page.once("dialog", lambda dialog: dialog.dismiss())
    clear.click()
    assert told in progress(page)
    page.once("dialog", lambda dialog: dialog.accept())
    clear.click()
    assert progress(page).endswith(f"Of all {number} you knew 0, half 0, not yet 0.")
    page.reload()
    assert page.locator(".tf-item .tf-mark").count() == 0
    assert visit.troubles == []


@pytest.mark.parametrize("stored", ["[", "3", "null", '{"q-1-short": "fine"}'])
def test_a_store_that_makes_no_sense_is_no_progress(visit: Visit, stored: str) -> None:
    page = visit.open(f"{DRILL}.html")
    page.evaluate("text => localStorage.setItem('tf-drill', text)", stored)
    page.reload()
    assert progress(page).endswith("you knew 0, half 0, not yet 0.")
    assert visit.troubles == []


def test_the_drill_works_where_the_browser_keeps_nothing(visit: Visit) -> None:
    visit.page.add_init_script(
        "Object.defineProperty(window, 'localStorage',"
        " {get() { throw new DOMException('no', 'SecurityError'); }})"
    )
    # The theme itself wants the store; its complaints are not ours.
    page = visit.open(f"{DRILL}.html")
    ask(page, "Kind", "30 seconds")
    for key in ("Space", "2", "Escape"):
        page.keyboard.press(key)
    assert "half 1" in progress(page)
    assert "This browser keeps nothing" in progress(page)


def test_an_answer_is_shown_and_judged_by_mouse(visit: Visit) -> None:
    page = visit.open(f"{DRILL}.html")
    ask(page, "Chapter", "5 · Positional encoding", "Kind", "Whiteboard")
    formula, judge = page.locator(".tf-card mjx-container[display]"), "3 · Knew it"
    assert page.locator(".tf-card .tf-item p").first.is_visible()
    assert not formula.first.is_visible()
    assert not page.get_by_role("button", name=judge).is_visible()
    page.get_by_role("button", name="Show the answer").click()
    assert formula.first.is_visible()
    page.get_by_role("button", name=judge).click()
    page.get_by_role("button", name="Skip").click()
    page.get_by_role("button", name="End the round").click()
    assert progress(page).startswith("Round over. Knew it: 1. 2 to ask")


def test_the_clock_counts_down_and_says_when_time_is_over(visit: Visit) -> None:
    page = visit.page
    page.clock.install()
    visit.open(f"{DRILL}.html")
    ask(page, "Kind", "30 seconds")
    page.keyboard.press("c")
    time, where = page.locator(".tf-time"), page.locator(".tf-card [role=status]")
    assert time.inner_text() == "0:30"
    page.clock.run_for(12_000)
    assert time.inner_text() == "0:18"
    assert "time" not in where.inner_text()
    page.clock.run_for(18_000)
    assert time.inner_text() == "Time."
    assert where.inner_text().endswith("time is over")
    page.keyboard.press("s")
    assert time.inner_text() == ""
    page.keyboard.press("Escape")
    ask(page, "Kind", "Follow-up")
    assert not page.get_by_role("button", name="Start the clock").is_visible()


def test_a_link_to_a_question_opens_it(visit: Visit) -> None:
    page = visit.open(f"{DRILL}.html#q-1-short")
    assert page.locator("#q-1-short p").first.is_visible()
    assert not page.locator("#q-1-long p").first.is_visible()


@pytest.mark.parametrize("name", ["transformers.apkg", "transformers.csv"])
def test_cards_are_offered_for_download(visit: Visit, name: str) -> None:
    page = visit.open(f"{DRILL}.html")
    with page.expect_download() as download:
        page.locator(f"a[href='{name}']").click()
    assert download.value.suggested_filename == name
    size = Path(download.value.path()).stat().st_size
    assert 50_000 < size < 500_000


def test_the_drill_is_a_list_without_javascript(plain: Any, address: str) -> None:
    plain.goto(f"{address}{DRILL}.html")
    assert plain.locator(".bd-article button").count() == 0
    item = plain.locator("#q-1-short")
    assert not item.locator("p").first.is_visible()
    item.locator("summary").click()
    assert item.locator("p").first.is_visible()


@pytest.fixture
def plain(browser: Any, address: str) -> Iterator[Any]:
    """Return a browser's page without JavaScript."""
    context = browser.new_context(java_script_enabled=False)
    yield context.new_page()
    context.close()


def test_pages_work_without_javascript(plain: Any, address: str) -> None:
    plain.goto(f"{address}{CHAPTERS[0]}.html")
    edge = plain.locator(".tf-verdict.tf-fails").first.evaluate(
        "one => getComputedStyle(one).borderLeftColor"
    )
    assert edge == "rgb(143, 18, 56)"
    assert plain.locator(".tf-quiz ol li").first.is_visible()
    assert plain.locator(".tf-quiz summary").first.is_visible()
    plain.goto(f"{address}{LEDGER}.html")
    assert shown(plain) > 1


def test_pages_work_from_files(browser: Any, book: Book) -> None:
    context = browser.new_context()
    visit = Visit(context.new_page(), book.html.as_uri() + "/")
    page = visit.open(f"{CHAPTERS[0]}.html")
    assert page.locator(".tf-quiz form").count() > 0
    assert page.locator("mjx-container").count() > 0
    assert visit.troubles == []
    context.close()


def test_figures_follow_the_theme(visit: Visit) -> None:
    page = visit.open(f"{CHAPTERS[0]}.html")
    figure = page.locator(".cell_output img").first
    style = "one => getComputedStyle(one).filter"
    assert figure.evaluate(style) == "none"
    set_theme(page, "dark")
    assert "invert(1)" in figure.evaluate(style)


def test_print_shows_what_is_folded_on_white(visit: Visit) -> None:
    page = visit.open(f"{CHAPTERS[0]}.html")
    set_theme(page, "dark")
    page.emulate_media(media="print")
    assert page.locator(".tf-instead details p").first.is_visible()
    assert not page.get_by_role("button", name="Hide the verdicts").first.is_visible()
    body = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert body == "rgb(255, 255, 255)"
    figure = page.locator(".cell_output img").first
    assert figure.evaluate("one => getComputedStyle(one).filter") == "none"


def test_icons_survive_forced_colours(visit: Visit) -> None:
    page = visit.open(f"{CHAPTERS[0]}.html")
    page.emulate_media(forced_colors="active")
    icon = page.locator(".tf-mark").first.evaluate(
        "one => getComputedStyle(one, '::before').backgroundColor"
    )
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert icon != ground
