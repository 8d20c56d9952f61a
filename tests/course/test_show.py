"""What cells print is escaped, complete, the same each time, and refused when poor."""

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from PIL import Image

from tfcourse.course import plots, show

ALT = "Line chart of the largest weight: 0.34 at width 4, 0.95 at width 1024."


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("a < b & `c < d`", "a &lt; b &amp; <code>c &lt; d</code>"),
        ("*so* **it** is", "<em>so</em> <strong>it</strong> is"),
        ("2*3*4 and d_model_x", "2*3*4 and d_model_x"),
        ("`*a*` stays", "<code>*a*</code> stays"),
        ("[See](a.md#C1) [batch n]", '<a href="a.md#C1">See</a> [batch n]'),
        ('<b onclick="x">', "&lt;b onclick=&quot;x&quot;&gt;"),
    ],
)
def test_text_is_escaped_but_for_a_few_marks(text: str, markup: str) -> None:
    assert show.rich(text) == markup


@pytest.mark.parametrize(
    ("text", "said"), [("$x$", "plain Unicode"), ("a ` b", "not closed")]
)
def test_tex_and_open_backticks_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        show.rich(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (-0.0, "0"),
        (16384, "16,384"),
        (-5, "−5"),
        (0.3456, "0.346"),
        (0.9996, "1.00"),
        (999.6, "1,000"),
        (9.996, "10.0"),
        (0.000123, "0.000123"),
        (4.2e-7, "4.2×10⁻⁷"),
        (-1e-12, "−1×10⁻¹²"),
        (123456.7, "123,000"),
        (np.float32(0.5), "0.500"),
        (np.int64(1000), "1,000"),
        (torch.tensor(1234), "1,234"),
        (torch.tensor([0.25]), "0.250"),
    ],
)
def test_numbers_are_written_for_readers(value: Any, text: str) -> None:
    assert show.num(value) == text


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), True, torch.tensor(True)]
)
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="num formats finite numbers"):
        show.num(value)


def test_digits_are_a_choice() -> None:
    assert [show.num(2 / 3, digits) for digits in (1, 2, 5)] == [
        "0.7",
        "0.67",
        "0.66667",
    ]


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [(3e-7, 1e-5, "under 10⁻⁵"), (0, 0.1, "under 0.1"), (0.2, 5e-1, "under 0.5")],
)
def test_small_errors_are_named_by_their_limit(
    value: float, limit: float, text: str
) -> None:
    assert show.under(value, limit) == text


@pytest.mark.parametrize("value", [1e-5, 2e-5, -1e-9, float("nan")])
def test_a_limit_that_does_not_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="is not between 0 and the limit"):
        show.under(value, 1e-5)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "under 0.1 s"), (0.3, "0.3 s"), (9.96, "10 s"), (61, "1 min 1 s")],
)
def test_durations(value: float, text: str) -> None:
    assert show.seconds(value) == text


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="not negative, got -1"):
        show.seconds(-1)


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.5, 0, "50 %"),
        (1.0, 0, "100 %"),
        (0.9999, 0, "99 %"),
        (0.9999, 1, "99.9 %"),
        (0.001, 0, "under 1 %"),
        (0.0, 0, "0 %"),
        (torch.tensor(0.25), 1, "25.0 %"),
    ],
)
def test_not_quite_all_is_never_written_as_all(
    value: Any, decimals: int, text: str
) -> None:
    assert show.percent(value, decimals) == text


def test_bounds_are_rounded_away_from_what_was_seen() -> None:
    assert show.at_least([0.9764, 0.99]) == "97 % or more"
    assert show.at_least([0.9764, 0.99], 1) == "97.6 % or more"
    assert show.at_least([0.29]) == "29 % or more"
    assert show.at_least([1.0, torch.tensor(1.0)]) == "100 %"
    assert show.at_most([0.5, 0.5123]) == "52 % or less"
    assert show.at_most([0.001]) == "1 % or less"
    assert show.at_most([0.29]) == "29 % or less"
    assert show.at_most([0.0]) == "0 %"


def test_tables_have_scoped_headers_and_formatted_numbers(displayed: Any) -> None:
    show.table(["part", "`n`"], [["a < b", 16384], [3, 0.5]])
    table = BeautifulSoup(displayed.html, "html.parser").table
    assert [th["scope"] for th in table.find_all("th")] == ["col", "col", "row", "row"]
    assert [td.text for td in table.find_all("td")] == ["16,384", "0.500"]
    assert table.find_all("th")[2].text == "a < b"
    with pytest.raises(ValueError, match="a row of 1 cells under 2"):
        show.table(["a", "b"], [["x"]])
    with pytest.raises(ValueError, match="needs a name"):
        show.table(["", "b"], [["x", 1]])


# ---- experiments --------------------------------------------------------------------


@pytest.fixture
def figure() -> Any:
    with matplotlib.rc_context():
        plots.use_style()
        drawn, ax = plots.figure(4.4, 3.7)
        plots.line(ax, [1, 2, 3], [0.1, 0.5, 0.9], "blue")
        plots.label(ax, 1, 0.8, "a line", "blue")
        yield drawn


def test_an_experiment_is_question_picture_and_answer(
    figure: Any, displayed: Any
) -> None:
    show.experiment(
        figure, "1.1", "Does it grow?", "Yes, to 0.9.", f"{ALT} <", (["x"], [[1]])
    )
    ask, picture, answer = displayed.bundles
    assert "Experiment 1.1" in ask["text/html"]
    assert "Does it grow?" in ask["text/plain"]
    assert displayed.metadata[1] == {"image/png": {"width": 440, "height": 370}}
    with Image.open(io.BytesIO(picture["image/png"])) as image:
        assert (image.size, image.mode) == ((880, 740), "P")
        assert len(image.getcolors()) <= 128
    box = BeautifulSoup(answer["text/html"], "html.parser").div
    assert box["data-alt"] == f"{ALT} <"
    assert box.p.text == "Answer. Yes, to 0.9."
    assert box.details.summary.text == "The numbers"


def test_a_picture_has_the_same_bytes_each_time(figure: Any) -> None:
    first = show.figure_png(figure)
    assert first == show.figure_png(figure)
    assert len(first) < 30_000
    assert b"Software" not in first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": "It grows."}, 'ends with "?"'),
        ({"answer": "Maybe 3."}, "begins with one of Yes, No, Only if"),
        ({"answer": "Nobody knows 3."}, "begins with one of"),
        ({"alt": "A chart with 3 lines"}, "at least 40 characters"),
        ({"alt": "A line chart without any number in its text, none"}, "a number"),
    ],
)
def test_a_poor_experiment_is_refused_before_anything_is_shown(
    figure: Any, displayed: Any, change: dict[str, str], said: str
) -> None:
    texts = {"question": "Is it?", "answer": "No, 3.", "alt": ALT} | change
    with pytest.raises(ValueError, match=said):
        show.experiment(figure, "1.1", **texts)
    assert displayed.bundles == []


@pytest.mark.parametrize("answer", ["Yes. 1", "No, 1", "Only if 1", "Yes: 1"])
def test_answers_begin_with_the_answer(
    figure: Any, displayed: Any, answer: str
) -> None:
    show.experiment(figure, "1.1", "Is it?", answer, ALT)
    assert len(displayed.bundles) == 3


# ---- quiz, check, source ------------------------------------------------------------


def test_the_key_of_a_quiz_is_the_place_of_the_true_option(displayed: Any) -> None:
    options = [("less", np.False_), ("`same`", torch.tensor(True)), ("more", 3 < 2)]
    show.quiz("1.2", "How many?", options, "It has 16,384.")
    quiz = BeautifulSoup(displayed.html, "html.parser").div
    assert quiz["data-key"] == "2"
    assert [li.text for li in quiz.ol.find_all("li")] == ["less", "same", "more"]
    assert quiz.details.p.text == "2. same. It has 16,384."
    assert quiz.details.get("open") is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([("a", True), ("b", True)], r"true: \[1, 2\]"),
        ([("a", False), ("b", False)], r"true: \[\]"),
        ([("a", True)], "1 options"),
        ([("a", 1), ("b", False)], "option 'a' must be one bool"),
    ],
)
def test_a_quiz_without_exactly_one_true_option_is_refused(
    displayed: Any, options: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        show.quiz("1.2", "How many?", options, "It is so.")
    assert displayed.bundles == []


def test_a_check_names_its_state_in_words(displayed: Any) -> None:
    for state in ("open", "fail", "pass"):
        show.check("causal_mask", state, ["got `1`, expected `2`"])
    texts = [bundle["text/plain"] for bundle in displayed.bundles]
    assert [text.splitlines()[0] for text in texts] == [
        "○ Not started causal_mask",
        "✗ Not yet causal_mask",
        "✓ Solved causal_mask",
    ]
    assert displayed.html.count("<code>1</code>") == 3


def test_a_verdict_carries_glyph_word_label_and_links(displayed: Any) -> None:
    quotes = {"C1": "one", "C2": "two"}
    show.verdict(quotes, "fails", ["Why."], {"Source": "x"}, {"tfcourse": 1})
    box = BeautifulSoup(displayed.html, "html.parser").div
    assert box["class"] == ["tf-verdict", "tf-fails"]
    assert (box["role"], box["aria-label"]) == ("note", "Claims C1, C2: fails")
    assert box.find(class_="tf-mark").text == "✗ Fails"
    assert [p.text for p in box.blockquote.find_all("p")] == ["“one”", "“two”"]
    assert [a["href"] for a in box.find_all("a")] == [
        "../book/ledger.md#C1",
        "../book/ledger.md#C2",
    ]
    assert displayed.metadata == [{"tfcourse": 1}]


def test_source_is_shown_as_a_fenced_block_that_names_its_file(displayed: Any) -> None:
    show.source(show.power_of_ten, plots.Series)
    text = displayed.bundles[0]["text/markdown"]
    assert text.startswith("```python\n# tfcourse/course/show.py\ndef power_of_ten(")
    assert "\n\n\n# tfcourse/course/plots.py\nclass Series(NamedTuple):" in text
    assert text.endswith("```")
    compile(displayed.bundles[0]["text/plain"], "source", "exec")


def test_source_of_a_method_begins_at_the_margin(displayed: Any) -> None:
    from tfcourse.course.ledger import Ledger

    show.source(Ledger.counts)
    assert "\ndef counts(self" in displayed.bundles[0]["text/plain"]


def test_outputs_keep_to_elements_that_every_viewer_keeps(
    figure: Any, displayed: Any
) -> None:
    show.experiment(figure, "1.1", "Is it?", "No, 3.", ALT, (["x"], [[1]]))
    show.quiz("1.2", "How many?", [("a", True), ("b", False)], "So.")
    show.check("f", "open", ["x"])
    show.verdict({"C1": "one"}, "fails", ["Why."], {"Source": "x"})
    show.verdict_table([(show.mark("holds"), ["C1"], ["one"], "2")])
    used = {tag.name for tag in BeautifulSoup(displayed.html, "html.parser").find_all()}
    kept = """div p strong em blockquote dl dt dd ol ul li table thead tbody tr th td
        details summary code small a span br"""
    assert used <= set(kept.split())
    assert "style=" not in displayed.html


def test_showing_imports_nothing_heavy() -> None:
    source = Path(show.__file__).read_text(encoding="utf-8")
    top = [line for line in source.splitlines() if line.startswith(("import", "from"))]
    assert not [line for line in top if "torch" in line or "matplotlib" in line]
    assert not [line for line in top if "IPython" in line or "PIL" in line]
