"""Recipes that turn one text into another: their data, and what they are scored by."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tfcourse.data.datasets import multi30k
from tfcourse.data.pairs import translation_batch
from tfcourse.recipes import translation
from tfcourse.recipes.catalogue import recipe
from tfcourse.recipes.run import config_of
from tfcourse.recipes.task import Task
from tfcourse.recipes.translation import as_in_papers, lead, translation_loss
from tfcourse.training.step import batch_loss

REAL = os.environ.get("TFCOURSE_TEST_DATA")
TINY: dict[str, Any] = {
    "d_model": 16,
    "d_ff": 16,
    "num_heads": 2,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
}
# The first test sentences of Multi30k are like these, which are made up.
CAPTIONS = [
    ("A man sits on a bench.", "Ein Mann sitzt auf einer Bank."),
    ("Two dogs run across a meadow.", "Zwei Hunde laufen über eine Wiese."),
    ('A girl reads "Emma".', 'Ein Mädchen liest "Emma".'),
] * 4


def made(name: str, **changes: Any) -> tuple[Any, Task]:
    one = recipe(name)
    settings = one.settings.changed({**TINY, **changes})
    task = one.task(settings, None)
    return one.build(config_of(settings, task.tokenizer), settings), task


@pytest.fixture
def _captions(monkeypatch: pytest.MonkeyPatch) -> None:
    def splits(source: str, target: str) -> dict[str, list[tuple[str, str]]]:
        pairs = CAPTIONS if source == "en" else [(g, e) for e, g in CAPTIONS]
        return {"train": pairs, "val": pairs[:2], "test": pairs[1:3]}

    monkeypatch.setattr(translation, "multi30k", splits)


def test_dates_of_the_three_parts_differ() -> None:
    seen: list[set[str]] = []

    def note(model: Any, pairs: Any, *_: Any) -> Any:
        seen.append({source for source, _ in pairs})
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translation, "exact_match", note)
        patch.setattr(translation, "_translation_scores", note)
        model, task = made("dates", count=300, steps=3)
        task.validate(model)
        task.score(model)
    batches = task.batches()
    train = {source for source, _ in batches.items}
    assert [len(train), *map(len, seen)] == [300, 500, 1000]
    assert not train & seen[0]
    assert not train & seen[1]
    assert not seen[0] & seen[1]


@pytest.mark.parametrize("steps", [1, 5, 11])
def test_there_are_batches_for_all_steps(steps: int) -> None:
    _, task = made("dates", count=20, steps=steps, batch=8)
    assert steps <= len(task.batches()) < steps + 3  # three make an epoch


@pytest.mark.usefixtures("_captions")
def test_multi30k_stays_within_its_budget_and_goes_round() -> None:
    _, task = made("multi30k", max_tokens=64, merges=20, steps=40)
    batches = list(task.batches())
    assert len(batches) >= 40
    for batch in batches:
        assert batch.source is not None
        assert max(batch.tokens.numel(), batch.source.numel()) <= 64
    assert task.tokenizer.vocab_size == 260 + 20


@pytest.mark.usefixtures("_captions")
@pytest.mark.parametrize(("source", "target"), [("en", "de"), ("de", "en")])
def test_multi30k_is_scored_as_papers_do_and_as_people_read(
    monkeypatch: pytest.MonkeyPatch, source: str, target: str
) -> None:
    model, task = made("multi30k", merges=20, beams=2, source=source, target=target)
    beams: list[int] = []
    right = dict(CAPTIONS) | {german: english for english, german in CAPTIONS}

    def translate(_: Any, texts: Any, *__: Any, num_beams: int = 1) -> list[str]:
        beams.append(num_beams)
        return [right[text] for text in texts]

    monkeypatch.setattr(translation, "translate", translate)
    assert task.validate(model) == pytest.approx(100)
    scores = task.score(model)
    assert [score.name for score in scores] == ["BLEU, tokens", "BLEU", "chrF"]
    assert [round(score.value) for score in scores] == [100, 100, 100]
    assert "tok:none" in scores[0].how
    assert "case:mixed" in scores[1].how
    assert beams == [1, 2]


def test_the_papers_scale_knows_neither_case_nor_spaces() -> None:
    score = as_in_papers("de")
    cased = ["Ein Mann, der auf einer Bank sitzt."]
    assert score(["ein mann , der auf einer bank sitzt ."], cased).value == (
        pytest.approx(100)
    )
    assert score(["ein hund , der auf einer bank sitzt ."], cased).value < 100


@pytest.mark.skipif(not REAL, reason="TFCOURSE_TEST_DATA names no folder")
def test_the_papers_tokens_are_those_of_the_published_test_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import gzip

    def lines(path: Path) -> list[str]:
        text = gzip.decompress(path.read_bytes()).decode()
        return [line.strip() for line in text.removesuffix("\n").split("\n")]

    raw = lines(Path(str(REAL), "multi30k", "test_2016_flickr.de.gz"))
    packed = Path(str(REAL), "multi30k_tok", "test_2016_flickr.lc.norm.tok.de.gz")
    cut = [translation.moses("de")(text) for text in raw]
    assert cut == lines(packed)
    assert sum(len(text.split()) for text in cut) == 12103


def test_a_docstring_is_cut_and_its_lead_is_its_first_sentence() -> None:
    _, task = made("summaries", bpe_size=300, max_body=9, steps=1, batch=4)
    batch = task.batches()[0]
    assert batch.source is not None
    assert batch.source.shape[1] <= 9 + 2  # cut within a character, it grows
    assert lead("Return it. Or do not.") == "Return it."
    assert lead("Say e.g. this", words=2) == "Say e.g."


def test_summaries_are_scored_beside_their_lead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, task = made("summaries", bpe_size=300)
    monkeypatch.setattr(
        translation, "translate", lambda _, texts, *__, num_beams: ["nothing"] * 200
    )
    mine, of_lead = (
        {s.name: s.value for s in task.score(model) if ("lead" in s.name) == is_lead}
        for is_lead in (False, True)
    )
    assert set(mine) == {"ROUGE-1", "ROUGE-2", "ROUGE-L"}
    assert set(of_lead) == {f"{name} of lead" for name in mine}
    assert of_lead["ROUGE-L of lead"] > 10 > mine["ROUGE-L"]


def test_validation_by_loss_counts_each_token_once() -> None:
    model, task = made("dates", count=70, style="short")
    pairs = task.batches().items[:70]
    model.eval()
    with torch.no_grad():
        total, count = batch_loss(model, translation_batch(pairs, task.tokenizer))
        found = translation_loss(model, pairs, task.tokenizer)
    assert found == pytest.approx((total / count).item(), rel=1e-5)


@pytest.mark.skipif(not REAL, reason="TFCOURSE_TEST_DATA names no folder")
def test_the_real_multi30k_fits_the_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path))
    monkeypatch.setenv("TFCOURSE_MIRROR", Path(str(REAL)).as_uri())
    one = recipe("multi30k")
    task = one.task(one.settings, None)
    longest = max(
        len(task.tokenizer.encode(text))
        for pairs in multi30k("en", "de").values()
        for pair in pairs
        for text in pair
    )
    assert longest < one.settings.model["max_seq_len"]
