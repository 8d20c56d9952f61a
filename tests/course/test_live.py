"""The model in the page: exported as it was trained, and computed alike by node."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tfcourse.course import live
from tfcourse.course.live import export_live
from tfcourse.data.dates import FIRST, LAST, write_dates
from tfcourse.data.many_dates import (
    DATE_STYLES,
    LANGUAGES,
    date_pair,
    language_tokenizer,
    names,
    request,
)
from tfcourse.data.pairs import pad, translation_batch
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.generation import beam_search
from tfcourse.model.attention import record_attention
from tfcourse.model.config import TransformerConfig
from tfcourse.model.masks import padding
from tfcourse.model.positions import PositionScheme
from tfcourse.model.transformer import Transformer
from tfcourse.recipes.catalogue import recipe
from tfcourse.recipes.run import Run, train
from tfcourse.training.evaluation import translate

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "book/_static/live"
DRIVER = Path(__file__).with_name("live_in_node.js")
FILES = ("model.safetensors", "model.json", "golden.safetensors", "golden.json")
TINY: dict[str, Any] = {
    "count": 40,
    "languages": "de,he,ja",
    "steps": 2,
    "batch": 8,
    "warmup": 1,
    "d_model": 16,
    "d_ff": 16,
    "num_heads": 2,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "evaluate_every": 1,
    "checkpoint_every": 1,
    "device": "cpu",
}


# ---- the export ---------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tfcourse.recipes.translation.LOOKED_AT", 4)
    monkeypatch.setattr("tfcourse.recipes.translation.TESTED_ON", 16)
    train("live-dates", tmp_path / "run", TINY)
    return tmp_path / "run"


def test_twice_from_a_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first, again = (export_live(run, tmp_path / name, 2) for name in ("a", "b"))
    assert [path.name for path in first] == list(FILES)
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(FILES)


def test_weights_are_the_runs_in_half_precision(run: Path, tmp_path: Path) -> None:
    export_live(run, tmp_path / "out", 1)
    trained = load_file(run / "model.safetensors")
    shipped = load_file(tmp_path / "out/model.safetensors")
    assert set(trained) == set(shipped)
    assert all(torch.equal(trained[name].half(), shipped[name]) for name in trained)


def test_every_day_is_asked_for_in_every_pair(run: Path, tmp_path: Path) -> None:
    export_live(run, tmp_path / "out", 2)
    about = json.loads((tmp_path / "out/model.json").read_text("utf-8"))
    scores = about["scores"]
    assert (scores["asked"], scores["days"]) == (3 * 3 * 2, 2)
    assert set(scores["by_source"]) == set(scores["by_target"]) == {"de", "he", "ja"}
    assert about["languages"]["he"]["direction"] == "rtl"
    assert about["languages"]["ja"]["name"] == "日本語"


def test_what_is_too_large_for_a_page_is_refused_and_nothing_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LIMIT", 1000)
    with pytest.raises(ValueError, match="more than the page's 1000"):
        export_live(run, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_other_runs_and_impossible_days_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="days must be from 1 to 16, not 17"):
        export_live(run, tmp_path / "out", 17)
    saved = json.loads((run / "settings.json").read_text("utf-8"))
    other = {"count": 40, "source": "de", "target": "en"}
    small = {name: TINY[name] for name in TINY if name not in ("count", "languages")}
    train("dates", tmp_path / "dates", {**small, **other})
    with pytest.raises(ValueError, match="a run of dates, not of live-dates"):
        export_live(tmp_path / "dates", tmp_path / "out")
    with pytest.raises(SystemExit) as stopped:
        live.main([str(tmp_path / "none"), str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "has no run" in capsys.readouterr().err
    assert saved["recipe"] == "live-dates"


# ---- what is shipped ----------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Run:
    """Return the model of the page as torch runs it, from the committed files."""
    about = json.loads((SHIPPED / "model.json").read_text("utf-8"))
    model = Transformer(TransformerConfig(**about["config"]))
    weights = load_file(SHIPPED / "model.safetensors")
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    one = recipe("live-dates")
    tokens = Tokenizer(tuple(about["symbols"]))
    return Run("live-dates", one, one.settings, tokens, model.eval())


@pytest.fixture(scope="module")
def about() -> dict[str, Any]:
    return json.loads((SHIPPED / "model.json").read_text("utf-8"))


def test_what_is_shipped_is_what_the_recipe_makes(
    shipped: Run, about: dict[str, Any]
) -> None:
    settings = shipped.settings
    trained = TransformerConfig(
        vocab_size=shipped.tokenizer.vocab_size, **settings.model
    )
    assert shipped.model.config == trained
    assert tuple(about["symbols"]) == language_tokenizer().symbols
    assert about["training"]["steps"] == settings.training.steps
    for key, value in live.describe(shipped).items():
        assert json.loads(json.dumps(value)) == about[key], key


def test_weights_are_half_precision_and_all_is_under_two_megabytes() -> None:
    weights = load_file(SHIPPED / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    # A third more for base64, in the scripts that the build writes.
    sizes = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    built = sum(sizes.values()) + sum(
        4 / 3 * sizes[f"{name}.safetensors"] + sizes[f"{name}.json"]
        for name in ("model", "golden")
    )
    assert built < 2_000_000


def test_figures_are_above_their_floors(about: dict[str, Any]) -> None:
    scores = about["scores"]
    assert scores["days"] >= 200
    assert scores["asked"] == len(LANGUAGES) ** 2 * scores["days"]
    shares = [scores["greedy"], scores["beam"]]
    shares += [*scores["by_source"].values(), *scores["by_target"].values()]
    assert len(shares) == 2 + 2 * len(LANGUAGES)
    assert min(shares) >= 0.98


def test_days_shown_are_unseen(shipped: Run, about: dict[str, Any]) -> None:
    unseen = live.unseen_days(shipped)
    assert about["unseen"] == [
        day.isoformat() for day in unseen[: len(about["unseen"])]
    ]


def requests(about: dict[str, Any], count: int) -> list[tuple[str, str]]:
    """Return requests and answers of unseen days, in pairs that go round."""
    return [
        date_pair(
            date.fromisoformat(day),
            LANGUAGES[n % 16],
            LANGUAGES[(n // 16 + 5 * n) % 16],
            DATE_STYLES[n % 2],
        )
        for n, day in enumerate(about["unseen"][:count])
    ]


def test_figures_can_be_measured_again(shipped: Run, about: dict[str, Any]) -> None:
    pairs = requests(about, 200)
    outputs = translate(shipped.model, [p[0] for p in pairs], shipped.tokenizer)
    right = sum(out == answer for out, (_, answer) in zip(outputs, pairs, strict=True))
    assert right >= 196


def test_a_weekday_that_does_not_fit_is_translated_as_it_stands(
    shipped: Run, about: dict[str, Any]
) -> None:
    pairs = []
    for n, day in enumerate(about["unseen"][:64]):
        right = date.fromisoformat(day)
        wrong = right + timedelta(days=1 + n % 6)
        texts = []
        for name in (LANGUAGES[n % 16], LANGUAGES[(5 * n + 1) % 16]):
            words = names(name)["weekdays"]
            [text] = write_dates([right], name, "full")
            texts.append(text.replace(words[right.weekday()], words[wrong.weekday()]))
        pairs.append((request(texts[0], LANGUAGES[(5 * n + 1) % 16]), texts[1]))
    outputs = translate(shipped.model, [p[0] for p in pairs], shipped.tokenizer)
    right = sum(out == answer for out, (_, answer) in zip(outputs, pairs, strict=True))
    assert right >= 62


def test_heads_look_where_the_page_says(shipped: Run) -> None:
    source, answer = date_pair(date(2026, 3, 3), "en", "fr", "full")
    batch = translation_batch([(source, answer)], shipped.tokenizer)
    with torch.no_grad(), record_attention(shipped.model) as weights:
        shipped.model(batch.tokens, batch.source)
    pieces = list(shipped.tokenizer.split(source))
    # The first token written is the weekday.
    cross = torch.cat([w[0, :, 0] for n, w in weights.items() if "cross" in n])
    for word in ("Tuesday", "français"):
        assert (cross[:, pieces.index(word)] > 0.5).sum() >= 2, word


# ---- the same in JavaScript ---------------------------------------------------------


def in_node(job: dict[str, Any], files: Path = SHIPPED) -> dict[str, Any]:
    """Return the outcome of a job: see live_in_node.js."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here to run the page's scripts in")
    done = subprocess.run(
        [node, DRIVER, SHIPPED, files],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def golden() -> list[dict[str, str]]:
    return json.loads((SHIPPED / "golden.json").read_text("utf-8"))


def test_golden_logits_are_torchs(shipped: Run) -> None:
    theirs = load_file(SHIPPED / "golden.safetensors")
    asked = golden()
    found = in_node({"logits": asked})
    assert found["crc32"]
    assert len(found["logits"]) == len(theirs) >= 10
    for n, mine in enumerate(found["logits"]):
        torch.testing.assert_close(
            torch.tensor(mine), theirs[str(n)], atol=1e-3, rtol=0
        )
        # And what is shipped as torch's is torch's.
        pair = (asked[n]["source"], asked[n]["target"])
        batch = translation_batch([pair], shipped.tokenizer)
        with torch.no_grad():
            again = shipped.model(batch.tokens, batch.source)[0]
        torch.testing.assert_close(again, theirs[str(n)], atol=1e-4, rtol=0)


@contextmanager
def switched(model: Transformer, changes: dict[str, Any]) -> Iterator[None]:
    """Do to torch's model what the page's switches do to theirs."""
    halves = (model.encoder, model.decoder)
    before = [half.positions for half in halves]
    with ExitStack() as stack:
        for name in changes.get("headsOff", []):
            kind, layer, head = name.split(" ")
            stack.enter_context(head_off(model, kind, int(layer), int(head)))
        if not changes.get("positions", True):
            for half in halves:
                half.positions = PositionScheme()
        model.decoder.is_decoder = changes.get("causal", True)
        try:
            yield
        finally:
            model.decoder.is_decoder = True
            for half, positions in zip(halves, before, strict=True):
                half.positions = positions


@contextmanager
def head_off(model: Transformer, kind: str, layer: int, head: int) -> Iterator[None]:
    """Let nothing of a head reach the output of its layer."""
    half = model.encoder if kind == "encoder" else model.decoder
    block = half.blocks[layer]
    attention = block.cross_attention if kind == "cross" else block.self_attention
    weight, width = attention.project_out.weight.data, attention.head_dim
    features = slice(head * width, (head + 1) * width)
    before = weight[:, features].clone()
    weight[:, features] = 0
    try:
        yield
    finally:
        weight[:, features] = before


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": False},
        {"causal": False},
        {"cross": False},
        {"headsOff": ["encoder 1 0"]},
        {"headsOff": ["decoder 0 2"]},
        {"headsOff": ["cross 1 3", "cross 0 3"]},
        {"positions": False, "causal": False, "headsOff": ["encoder 0 2"]},
    ],
)
def test_switched_off_parts_change_what_they_change_in_torch(
    shipped: Run, changes: dict[str, Any]
) -> None:
    asked = golden()[2]
    pair = (asked["source"], asked["target"])
    batch = translation_batch([pair], shipped.tokenizer)
    seen = torch.full_like(batch.source, changes.get("cross", True), dtype=torch.bool)
    with torch.no_grad(), switched(shipped.model, changes):
        memory = shipped.model.encode(batch.source)
        with record_attention(shipped.model):  # a row with nothing to see is zero
            theirs = shipped.model(
                batch.tokens, memory=memory, source_mask=padding(seen)
            )[0]
    whole = load_file(SHIPPED / "golden.safetensors")["2"]
    assert (theirs - whole).abs().max() > 0.1
    mine = in_node({"logits": [{**asked, "changes": changes}]})["logits"][0]
    torch.testing.assert_close(torch.tensor(mine), theirs, atol=1e-3, rtol=0)


def test_unseen_dates_are_translated_as_torch_does(
    shipped: Run, about: dict[str, Any]
) -> None:
    texts = [source for source, _ in requests(about, 200)]
    texts += ["Deutsch: Tuesday 41 Foo", "日本語: 1"]  # where the model is unsure
    found = in_node({"greedy": texts, "beam": [*texts[:48], *texts[-2:]]})
    assert found["greedy"] == translate(shipped.model, texts, shipped.tokenizer)
    some = [*texts[:48], *texts[-2:]]
    outputs, scores = by_beam(shipped, some, about["beams"])
    assert [text for text, _ in found["beam"]] == outputs
    np.testing.assert_allclose([s for _, s in found["beam"]], scores, atol=1e-3)


def by_beam(run: Run, texts: list[str], beams: int) -> tuple[list[str], list[float]]:
    """Return torch's translations by beam search, and their scores."""
    tokens = run.tokenizer
    source = pad([tokens.encode(text) for text in texts], tokens.pad)
    found, scores = beam_search(
        run.model,
        torch.full_like(source[:, :1], tokens.start),
        max_new_tokens=run.model.config.max_seq_len - 1,
        num_beams=beams,
        stop_token=tokens.stop,
        source=source,
        source_mask=padding(source != tokens.pad),
    )
    return [tokens.decode(row[1:]) for row in found.tolist()], scores.tolist()


def test_half_precision_is_read_bit_by_bit() -> None:
    bits = [0, 1, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x8001, 0xC248, 0x7C00, 0xFC00]
    bits += list(range(0, 1 << 16, 97))
    halves = np.array(bits, dtype=np.uint16).view(np.float16).astype(np.float64)
    mine = in_node({"halves": bits})["halves"]
    # "Infinity" and "NaN" are what JavaScript calls them.
    np.testing.assert_array_equal(np.array(mine, dtype=np.float64), halves)


def test_texts_are_cut_into_the_same_tokens(shipped: Run) -> None:
    texts = [source for day in ("2026-03-03", "1950-12-31") for source in texts_of(day)]
    texts += [
        "",
        "x",
        "12 34",
        "März  März",
        "سه‌شنبه‌ها",
        "a\u0301b",
        "٣ مارس",
        "日。本",
    ]
    mine = in_node({"encoded": texts})["encoded"]
    assert mine == [shipped.tokenizer.encode(text) for text in texts]


def texts_of(iso: str) -> list[str]:
    day = date.fromisoformat(iso)
    return [
        request(write_dates([day], language, style)[0], "ja")
        for language in LANGUAGES
        for style in DATE_STYLES
    ]


def test_dates_are_written_and_read_as_babel_writes_them() -> None:
    days = [FIRST, date(1972, 2, 29), date(2000, 1, 1), date(2026, 3, 3), LAST]
    asked = [
        (day, code, style)
        for day in days
        for code in LANGUAGES
        for style in DATE_STYLES
    ]
    texts = [write_dates([day], code, style)[0] for day, code, style in asked]
    sent = [[day.isoformat(), code, style] for day, code, style in asked]
    some = slice(None, None, 23)
    found = in_node(
        {
            "written": sent,
            "found": [
                *(
                    [text, one[1]]
                    for text, one in zip(texts[some], sent[some], strict=True)
                ),
                ["March 3, 2026 ", "en"],
            ],
        }
    )
    assert found["written"] == texts
    *known, unknown = found["found"]
    assert known == [{"iso": day, "style": style} for day, _, style in sent[some]]
    assert unknown is None


# ---- damaged files ------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Return a folder with a copy of the model's files."""
    for name in FILES[:2]:
        shutil.copy(SHIPPED / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:4], "cut short, or are no safetensors file"),
        (lambda data: b"<!DOCTYPE html>" * 99, "cut short, or are no safetensors"),
        (lambda data: data[:-100], "is cut short: the file is damaged"),
        (lambda data: data[:20] + b"\xff\x00" + data[22:], "header of the weights"),
        (lambda data: data.replace(b'"F16"', b'"I16"', 1), "has type I16, not F16"),
        (
            lambda data: data.replace(
                b"encoder.last_norm.bias", b"encoder.lost_norm.bias"
            ),
            "The file has no weight encoder.last_norm.bias",
        ),
    ],
)
def test_a_damaged_file_is_named(damaged: Path, change: Any, message: str) -> None:
    path = damaged / "model.safetensors"
    path.write_bytes(change(path.read_bytes()))
    assert message in in_node({}, damaged)["error"]


def test_a_flipped_bit_is_found_by_the_checksum(damaged: Path) -> None:
    path = damaged / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert in_node({}, damaged)["crc32"] is False


def test_a_model_that_the_page_cannot_compute_is_refused(damaged: Path) -> None:
    path = damaged / "model.json"
    about = json.loads(path.read_text("utf-8"))
    model = TransformerConfig(**about["config"])
    for config, message in (
        (replace(model, position="rotary"), "position=sinusoidal, not rotary"),
        (replace(model, d_ff=128), "has shape 64,256, not 64,128"),
    ):
        about["config"] = vars(config)
        path.write_text(json.dumps(about), encoding="utf-8")
        assert message in in_node({}, damaged)["error"]
