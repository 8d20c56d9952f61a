"""The book on paper: two small pages joined and printed, and what the PDF then has."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from built_book import ROOT, listed_pages
from PIL import Image
from pypdf import PdfReader

from tfcourse.course import paper

SETTINGS = {"title": "A book", "author": "Some people", "copyright": "2026"}
PARTS = [
    paper.Part("", [("book/start", "Start")]),
    paper.Part("Chapters", [("notebooks/01_one", "1 · One")]),
]
PAGE = """<html><head>
<link rel="stylesheet" href="../_static/tf.css">
<script>window.MathJax = {{"options": {{"enableMenu": false}}}}</script>
<script defer src="../_static/mathjax/es5/tex-mml-chtml.js"></script>
<script src="../_static/tf.js"></script>
</head><body><nav>sidebar words</nav><article class="bd-article">{}</article>
</body></html>"""
START = """<section id="start"><h1>Where it starts<a
class="headerlink" href="#start">#</a></h1>
<p>See <a href="../notebooks/01_one.html#C1">the claim</a>,
<a href="../notebooks/01_one.html">all</a>, <a href="../search.html">search</a>.</p>
</section>"""
CHAPTER = r"""<section id="one"><h1>The first chapter</h1>
<p>So <span class="math">\(\frac{\alpha}{\sqrt{d_k}}\)</span> it is.
<a id="C1" href="../book/start.html#start">C1</a></p>
<details><summary>Answer</summary><p>Folded words.</p></details>
<details class="tf-code"><summary>Code</summary><pre>plotting()</pre></details>
<button>Press</button><img src="../_images/one.png" alt="A picture of 1 thing">
</section>"""


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two pages with their styles, MathJax and a picture."""
    folder = tmp_path_factory.mktemp("html")
    shutil.copytree(ROOT / "book" / "_static", folder / "_static")
    for name, text in (("book/start", START), ("notebooks/01_one", CHAPTER)):
        write(folder / f"{name}.html", PAGE.format(text))
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(picture, "png")
    (folder / "_images").mkdir()
    (folder / "_images" / "one.png").write_bytes(picture.getvalue())
    return folder


def write(path: Path, text: str) -> None:
    """Write a file and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def joined(html: Path) -> BeautifulSoup:
    """Return the two pages as one."""
    return BeautifulSoup(paper.join(html, PARTS, SETTINGS), "html.parser")


# ---- joining ------------------------------------------------------------------------


def test_parts_are_the_pages_of_the_book_in_order() -> None:
    parts = paper.read_parts(ROOT / "_toc.yml")
    assert [page for part in parts for page, _ in part.pages] == listed_pages()
    assert all(title for part in parts for _, title in part.pages)


def test_links_lead_to_their_places_in_the_joined_page(html: Path) -> None:
    page = joined(html)
    links = {link.get_text(): link.get("href") for link in page.select("article a")}
    assert links == {
        "the claim": "#notebooks-01_one--C1",
        "all": "#notebooks-01_one",
        "search": None,
        "C1": "#book-start--start",
    }
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert {str(href)[1:] for href in links.values() if href} <= set(ids)


def test_what_is_for_a_screen_is_left_out_and_answers_are_open(html: Path) -> None:
    page = joined(html)
    assert not page.select("article script, button, .headerlink, .tf-code, body > nav")
    assert "sidebar words" not in page.get_text()
    assert [tag["open"] for tag in page.select("details")] == [""]
    loaded = [str(tag["src"]) for tag in page.select("script[src]")]
    assert loaded == ["_static/mathjax/es5/tex-mml-chtml.js"]
    assert page.img["src"] == "_images/one.png"


def test_a_dead_link_and_a_page_that_is_not_built_are_refused(
    html: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"nothing\.html is not built"):
        paper.join(html, [paper.Part("", [("book/nothing", "No")])], SETTINGS)
    write(tmp_path / "dead.html", PAGE.format('<a href="#gone">x</a>'))
    with pytest.raises(ValueError, match="a link of dead leads nowhere: '#dead--gone'"):
        paper.join(tmp_path, [paper.Part("", [("dead", "Dead")])], SETTINGS)


# ---- printing -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pdf(html: Path, browser: Any) -> PdfReader:
    """Print the two pages."""
    text = paper.join(html, PARTS, SETTINGS)
    return PdfReader(io.BytesIO(paper.print_page(browser, text, html)))


def test_the_pdf_has_a_cover_contents_and_each_page_on_a_sheet_of_its_own(
    pdf: PdfReader,
) -> None:
    texts = [sheet.extract_text() for sheet in pdf.pages]
    assert len(texts) == 4
    assert "A book" in texts[0]
    rows = re.findall(r"^(Start|1 · One)\s*(\d+)$", texts[1], re.MULTILINE)
    assert rows == [("Start", "3"), ("1 · One", "4")]
    assert "Where it starts" in texts[2]
    # The sheet's head, its number, and then what stands on it.
    assert re.match(r"1 · One\n4\nThe .* chapter\n", texts[3])


def test_formulas_figures_and_folded_answers_are_printed(pdf: PdfReader) -> None:
    sheet = pdf.pages[3]
    text = sheet.extract_text()
    assert "Folded words." in text
    assert "frac" not in text
    assert "\\(" not in text
    assert len(sheet.images) == 1
    assert {"α", "√"} <= set(text)  # set by MathJax, in its own font
    fonts = [font.get_object() for font in sheet["/Resources"]["/Font"].values()]
    told = [font["/FontDescriptor"] for font in fonts if "/FontDescriptor" in font]
    assert any("MathJax_Math" in font.get_object()["/FontName"] for font in told)


def test_outline_and_links_work_inside_the_pdf(pdf: PdfReader) -> None:
    assert [place.title for place in pdf.outline] == [
        "Where it starts",
        "The first chapter",
    ]
    links = [note.get_object() for note in pdf.pages[2]["/Annots"]]
    aims = [str(link.get("/Dest") or link["/A"]["/D"]).lstrip("/") for link in links]
    assert aims == ["notebooks-01_one--C1", "notebooks-01_one"]
    places = {name.lstrip("/"): at for name, at in pdf.named_destinations.items()}
    sheets = [pdf.get_destination_page_number(places[aim]) for aim in aims]
    assert sheets == [3, 3]


@pytest.mark.parametrize(
    "source", ["http://elsewhere.invalid/x.png", "_images/missing.png"]
)
def test_what_the_book_does_not_have_is_refused(
    html: Path, browser: Any, source: str
) -> None:
    text = f'<meta charset="utf-8"><img src="{source}" alt="">'
    with pytest.raises(ValueError, match=r"does not have.*\.png"):
        paper.print_page(browser, text, html)


def test_a_formula_wider_than_the_sheet_is_set_smaller(
    html: Path, browser: Any
) -> None:
    page = browser.new_page(viewport={"width": 300, "height": 300})
    inner = '<span style="display: inline-block; width: {}px">x</span>'
    wide, small = inner.format(600), inner.format(20)
    page.set_content(
        f"<p><mjx-container display='true'>{wide}</mjx-container></p>"
        f"<p><mjx-container display='true'>{small}</mjx-container></p>"
    )
    page.evaluate(paper.FIT_FORMULAS, 300)
    sizes = page.locator("mjx-container").evaluate_all(
        "all => all.map(one => one.style.fontSize)"
    )
    page.close()
    assert 40 <= float(sizes[0].rstrip("%")) <= 50
    assert sizes[1] == ""


@pytest.mark.parametrize("arguments", [[], ["nowhere", "out.pdf"]])
def test_the_command_refuses_what_it_cannot_print(
    tmp_path: Path, arguments: list[str]
) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tfcourse.course.paper", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("paper: ")
    assert "Traceback" not in run.stderr
