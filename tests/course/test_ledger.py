"""The ledger is checked when it is read, and a claim is what its evidence shows."""

import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tfcourse.course import ledger
from tfcourse.course.ledger import (
    ClaimError,
    cited,
    claim,
    claim_table,
    evidence,
    load_ledger,
)

Text = dict[str, Any]


@pytest.fixture
def small() -> Text:
    """Return a ledger of six rows, as the file holds it."""
    common = {
        "chapter": 1,
        "section": "main",
        "source": {"one2020work": "section 3", "two2021work": "abstract"},
        "evidence": "experiment",
        "when": None,
        "rests_on": None,
    }
    rows = [
        {"id": "C1", "claim": "It is so.", "verdict": "holds", "reason": "Yes, it is."},
        {"id": "C2", "verdict": "fails", "reason": "No `x`.", "claim": "a < b"},
        {"id": "C3", "verdict": "depends", "reason": "If.", "claim": "Now and then."},
        {"id": "C4", "verdict": "fails", "reason": "As C2.", "claim": "Again."},
        {"id": "C5", "verdict": "holds", "reason": "They say.", "claim": "History."},
        {"id": "C9", "verdict": "depends", "reason": "Or.", "claim": "Later."},
    ]
    rows[2] |= {"when": "it rains"}
    rows[5] |= {"when": "it snows", "chapter": 2}
    claims = [common | row for row in rows]
    claims[3]["rests_on"] = "C2"
    claims[4]["evidence"] = "citation"
    title = {"title": "T", "question": "Q?"}
    return {
        "chapters": {n: {"notebook": f"0{n}_x", **title} for n in (1, 2)},
        "sources": {"one2020work": "One 2020", "two2021work": "Two 2021"},
        "claims": claims,
    }


def written(tmp_path: Path, data: Text) -> Path:
    path = tmp_path / f"ledger_{len(list(tmp_path.iterdir()))}.yml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return path


@pytest.fixture
def use(tmp_path: Path, small: Text, monkeypatch: pytest.MonkeyPatch) -> Text:
    """Let claims be decided against the small ledger, as it is when they are made."""
    loaded = load_ledger

    def load() -> ledger.Ledger:
        return loaded(written(tmp_path, small))

    monkeypatch.setattr(ledger, "load_ledger", load)
    return small


# ---- the file -----------------------------------------------------------------------


def test_the_ledger_of_the_course_is_read_with_both_chapters_complete() -> None:
    ids = [row.id for row in load_ledger().claims.values()]
    assert ids[:23] == [f"C{n}" for n in range(1, 24)]
    assert {f"C{n}" for n in range(112, 132)} <= set(ids)
    assert load_ledger().of_chapter(6)[0].id == "C112"
    assert sum(load_ledger().counts().values()) == len(ids)


def test_counts_are_of_one_chapter_or_of_all(tmp_path: Path, small: Text) -> None:
    read = load_ledger(written(tmp_path, small))
    assert read.counts() == {"holds": 2, "depends": 2, "fails": 2}
    assert read.counts(2) == {"holds": 0, "depends": 1, "fails": 0}


def test_an_unknown_id_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown claim 'C011'; nearest known: .*C11"):
        load_ledger().row("C011")


def test_sources_are_cited_once_in_the_order_of_the_file(
    tmp_path: Path, small: Text
) -> None:
    read = load_ledger(written(tmp_path, small))
    assert read.cite([read.row("C1"), read.row("C2")], folder="") == (
        "[One 2020, section 3](bibliography.md#one2020work); "
        "[Two 2021, abstract](bibliography.md#two2021work)"
    )


@pytest.mark.parametrize(
    ("row", "change", "said"),
    [
        (0, {"id": "6"}, "row 6: an id is C and a number"),
        (1, {"id": "C1"}, "row C1 stands twice or out of order"),
        (0, {"chapter": 3}, "row C1: chapter must be one of 1, 2; got 3"),
        (
            0,
            {"verdict": "true"},
            "row C1: verdict must be one of holds, depends, fails",
        ),
        (0, {"evidence": "proof"}, "must be one of experiment, computation, citation"),
        (0, {"section": "follow-up"}, "row C1: section must be question, main or"),
        (0, {"when": "always"}, "row C1: `when` is required for depends and null"),
        (2, {"when": None}, "row C3: `when` is required for depends"),
        (0, {"reason": " "}, "row C1: reason must be a text"),
        (0, {"claim": None}, "row C1: claim must be a text"),
        (0, {"claim": "$x$"}, "plain Unicode"),
        (0, {"source": {}}, "row C1: source must map"),
        (
            0,
            {"source": {"one2020": "x"}},
            r"unknown sources \['one2020'\].*one2020work",
        ),
        (0, {"source": {"one2020work": None}}, "row C1: say where"),
        (0, {"rests_on": "C8"}, "row C1: rests_on must be null or another row's id"),
        (0, {"rests_on": "C1"}, "row C1: rests_on must be null or another row's id"),
        (0, {"colour": "red"}, r"row C1: missing \[\], unknown \['colour'\]"),
    ],
)
def test_a_wrong_row_is_refused_by_name(
    tmp_path: Path, small: Text, row: int, change: Text, said: str
) -> None:
    small["claims"][row] |= change
    with pytest.raises(ValueError, match=said):
        load_ledger(written(tmp_path, small))


def test_a_missing_field_is_named(tmp_path: Path, small: Text) -> None:
    del small["claims"][0]["rests_on"]
    with pytest.raises(ValueError, match=r"row C1: missing \['rests_on'\]"):
        load_ledger(written(tmp_path, small))


# ---- deciding -----------------------------------------------------------------------

YES, NO = {"seen": True}, {"not seen": True}


@pytest.mark.parametrize(
    ("id_", "sides"),
    [
        ("C1", {"holds": YES}),
        ("C2", {"fails": NO}),
        ("C3", {"holds": YES, "fails": NO}),
    ],
)
def test_the_verdict_is_computed_from_the_kinds_of_evidence(
    use: Text, displayed: Any, id_: str, sides: Any
) -> None:
    claim(id_, measured="3 of 4", **sides)
    verdict = load_verdict(use, id_)
    assert displayed.claims == [
        {
            "id": id_,
            "verdict": verdict,
            "measured": "3 of 4",
            "conditions": {
                "holds": list(sides.get("holds", ())),
                "fails": list(sides.get("fails", ())),
            },
            "ran": True,
        }
    ]
    assert f'class="tf-verdict tf-{verdict}"' in displayed.html


def load_verdict(data: Text, id_: str) -> str:
    return next(row["verdict"] for row in data["claims"] if row["id"] == id_)


@pytest.mark.parametrize("true", [np.True_, np.array([True]), torch.tensor(True)])
def test_bools_of_numpy_and_torch_are_conditions(
    use: Text, displayed: Any, true: Any
) -> None:
    claim("C1", holds={"seen": true}, measured="1")
    assert displayed.claims[0]["verdict"] == "holds"


@pytest.mark.parametrize(
    "value",
    [1, 0.5, None, "yes", torch.tensor([True, True]), np.array([]), torch.ones(1)],
)
def test_what_is_not_one_bool_is_no_condition(use: Text, value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"claim C1: condition 'seen' must be one bool"
    ):
        claim("C1", holds={"seen": value}, measured="1")


@pytest.mark.parametrize("verdict", ["holds", "depends"])
def test_a_claim_turned_false_on_purpose_fails_by_name(
    use: Text, displayed: Any, verdict: str
) -> None:
    use["claims"][1] |= {"verdict": verdict, "when": None}
    if verdict == "depends":
        use["claims"][1]["when"] = "ever"
    said = f"claim C2: the evidence says 'fails', the ledger says '{verdict}'"
    with pytest.raises(ClaimError, match=said):
        claim("C2", fails=NO, measured="1")
    assert displayed.bundles == []


def test_a_condition_that_is_not_met_fails_by_name(use: Text, displayed: Any) -> None:
    with pytest.raises(ClaimError, match=r"claim C2: not met: larger\. Measured: 3"):
        claim("C2", fails={"larger": torch.tensor(3) > 4, "any": True}, measured="3")
    assert displayed.bundles == []


@pytest.mark.parametrize("sides", [{}, {"holds": {}}, {"holds": {}, "fails": {}}])
def test_a_claim_without_evidence_is_refused(use: Text, sides: Any) -> None:
    with pytest.raises(ClaimError, match="claim C1: no evidence given"):
        claim("C1", measured="1", **sides)
    with pytest.raises(ClaimError, match="claim C1: `measured` must say"):
        claim("C1", holds=YES, measured=" ")


def test_several_rows_share_a_box_when_their_verdicts_agree(
    use: Text, displayed: Any
) -> None:
    claim("C2", "C4", fails=NO, measured="0")
    assert [record["id"] for record in displayed.claims] == ["C2", "C4"]
    assert len(displayed.bundles) == 1
    assert "No <code>x</code>." in displayed.html
    assert "As C2." not in displayed.html  # it rests on a row of the same box
    with pytest.raises(ClaimError, match="one verdict; the ledger says C1 holds, C2 f"):
        claim("C1", "C2", holds=YES, measured="0")


def test_a_run_that_does_not_train_decides_nothing(use: Text, displayed: Any) -> None:
    claim("C2", holds={"seen": False}, measured="1", ran=False)
    assert displayed.claims[0]["ran"] is False
    assert displayed.claims[0]["verdict"] is None
    assert "Not run at this size." in displayed.html
    assert "No <code>x" not in displayed.html
    with pytest.raises(ValueError, match="condition 'seen' must be one bool"):
        claim("C2", holds={"seen": 1}, measured="1", ran=False)


def test_the_box_says_what_was_measured_and_when_it_holds(
    use: Text, displayed: Any
) -> None:
    claim("C3", holds={"wet": True}, fails={"dry": True, "hot": True}, measured="2 mm")
    assert displayed.bundles[0]["text/plain"].splitlines() == [
        "◐ Depends claim C3",
        "“Now and then.”",
        "If.",
        "Measured here: 2 mm",
        "Seen to hold: wet",
        "Seen to fail: dry; hot",
        "Holds when: it rains",
        "Source: One 2020, section 3; Two 2021, abstract",
    ]
    assert '<a href="../book/ledger.md#C3">C3</a>' in displayed.html
    assert '<a href="../book/bibliography.md#one2020work">' in displayed.html


def test_text_of_the_ledger_is_escaped(use: Text, displayed: Any) -> None:
    claim("C2", fails=NO, measured="a < b & c")
    assert "“a &lt; b”" in displayed.html
    assert "<dd>a &lt; b &amp; c</dd>" in displayed.html


def test_literature_and_measurement_are_not_confused(use: Text, displayed: Any) -> None:
    cited("C5")
    assert "<dt>Measured here</dt><dd>Nothing.</dd>" in displayed.html
    assert displayed.claims[0]["verdict"] == "holds"
    with pytest.raises(ValueError, match=r"\['C1'\] are measured in the course"):
        cited("C1")
    with pytest.raises(ValueError, match=r"\['C5'\] rest on literature only"):
        claim("C5", holds=YES, measured="1")
    use["claims"][1]["evidence"] = "citation"
    with pytest.raises(ClaimError, match="one verdict; the ledger says C2 fails, C5"):
        cited("C2", "C5")
    with pytest.raises(ValueError, match="at least one claim"):
        claim(holds=YES, measured="1")


def test_lesser_claims_stand_in_one_table(use: Text, displayed: Any) -> None:
    claim_table(
        "C5",
        evidence("C2", "C4", fails=NO, measured="4 of 5"),
        evidence("C3", holds=YES, measured="1", ran=False),
    )
    assert [record["id"] for record in displayed.claims] == ["C5", "C2", "C4", "C3"]
    assert displayed.html.count("<tr><td>") == 3
    assert "<em>Measured:</em> 4 of 5" in displayed.html
    assert "<em>Cited:</em>" in displayed.html
    assert "<strong>Not run</strong>" in displayed.html
    with pytest.raises(ClaimError, match="claim C1: not met: seen"):
        claim_table(evidence("C1", holds={"seen": False}, measured="0"))


# ---- in a notebook ------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["fails", "holds"])
def test_a_reader_of_a_failed_run_sees_which_claim_it_was(
    tmp_path: Path, verdict: str
) -> None:
    """The course's own ledger with one verdict changed, in a kernel as in a chapter."""
    text = ledger.LEDGER_FILE.read_text(encoding="utf-8")
    row = text.index("- id: C6\n")
    place = text.index("verdict: fails", row)
    path = tmp_path / "ledger.yml"
    path.write_text(
        text[:place] + f"verdict: {verdict}" + text[place + len("verdict: fails") :],
        encoding="utf-8",
    )
    source = (
        "from pathlib import Path\nfrom tfcourse.course import ledger\n"
        f"read = ledger.load_ledger(Path({str(path)!r}))\n"
        "ledger.load_ledger = lambda: read\n"
        'ledger.claim("C6", fails={"values enter no score": 1 < 2}, measured="0")'
    )
    cell = nbformat.v4.new_code_cell(source)
    client = NotebookClient(nbformat.v4.new_notebook(cells=[cell]))
    if verdict == "fails":
        client.execute()
        assert "tf-fails" in cell.outputs[0].data["text/html"]
        return
    with pytest.raises(CellExecutionError) as failed:
        client.execute()
    text = re.sub(r"\x1b\[[\d;]*m", "", str(failed.value))
    last = text.strip().splitlines()[-1]
    assert last.startswith(
        "ClaimError: claim C6: the evidence says 'fails', the ledger"
    )
