"""Recipes of pictures: what they draw, how they ask, what they are scored by."""

from typing import Any

import pytest
import torch

from tfcourse.data.digits import handwritten_digits
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.recipes import pictures
from tfcourse.recipes.catalogue import recipe
from tfcourse.recipes.pictures import baseline, describe, picture_batch
from tfcourse.recipes.run import config_of, evaluate_run, train
from tfcourse.recipes.task import Task
from tfcourse.training.loop import fit
from tfcourse.variants.pictures import PictureTransformer

TINY: dict[str, Any] = {
    "d_model": 16,
    "d_ff": 16,
    "num_heads": 2,
    "num_encoder_layers": 1,
    "batch": 16,
    "dropout": 0.0,
}
GRIDS = {**TINY, "num_decoder_layers": 1, "count": 40, "patch": 8}


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LOOKED_AT", 20)
    monkeypatch.setattr(pictures, "TESTED_ON", 30)
    monkeypatch.setattr(pictures, "TOGETHER", 7)


def made(name: str, changes: dict[str, Any]) -> tuple[PictureTransformer, Task]:
    one = recipe(name)
    settings = one.settings.changed(changes)
    task = one.task(settings, None)
    torch.manual_seed(0)
    model = one.build(config_of(settings, task.tokenizer), settings)
    assert isinstance(model, PictureTransformer)
    return model, task


def shown(items: Any) -> set[tuple[float, ...]]:
    return {tuple(picture.flatten().tolist()) for picture, _ in items}


def cells(items: Any) -> set[tuple[float, ...]]:
    """Return the digits that grids show."""
    found = set()
    for picture, _ in items:
        for square in picture.unfold(0, 8, 8).unfold(1, 8, 8).flatten(0, 1):
            if square.any():
                found.add(tuple(square.flatten().tolist()))
    return found


def parts(name: str, changes: dict[str, Any]) -> list[Any]:
    """Return what a recipe trains on, looks at and tests on."""
    seen: list[Any] = []

    def note(model: Any, tokenizer: Any, asked: Any) -> list[str]:
        seen.append([(picture, "") for picture in asked])
        return ["0"] * len(asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "describe", note)
        model, task = made(name, changes)
        task.validate(model)
        task.score(model)
    return [task.batches().items, *seen]


def test_no_digit_that_is_looked_at_or_tested_on_is_trained_on() -> None:
    trained, looked, tested = map(shown, parts("digits", TINY))
    assert (len(trained), len(looked), len(tested)) == (1417, 20, 360)
    assert trained.isdisjoint(looked | tested)
    assert looked.isdisjoint(tested)


def test_grids_for_testing_are_of_digits_that_no_other_shows() -> None:
    trained, looked, tested = parts("captions", GRIDS)
    assert (len(trained), len(looked), len(tested)) == (40, 20, 30)
    assert cells(trained).isdisjoint(cells(looked) | cells(tested))
    assert shown(looked).isdisjoint(shown(tested))


def test_a_label_is_one_token_asked_for_at_the_start() -> None:
    tokens = Tokenizer.from_texts("0123456789")
    grey = torch.full((8, 8), 0.5)
    batch = picture_batch([(grey, "3"), (grey / 2, "9")], tokens)
    assert batch.tokens.tolist() == [[tokens.start], [tokens.start]]
    assert batch.target.tolist() == [tokens.encode("3"), tokens.encode("9")]
    assert batch.source is not None
    assert batch.source[:, 0, 0].tolist() == [0.5, 0.25]


def test_a_caption_is_shifted_by_one_and_ends_with_stop() -> None:
    tokens = Tokenizer.from_texts(["the 3 and", "the"])
    grey = torch.full((24, 24), 0.5)
    batch = picture_batch([(grey, "the 3 and"), (grey, "the")], tokens)
    long, short = tokens.encode("the 3 and"), tokens.encode("the")
    assert batch.tokens.tolist()[0] == [tokens.start, *long]
    assert batch.target.tolist()[0] == [*long, tokens.stop]
    rest = len(long) - 1
    assert batch.tokens.tolist()[1] == [tokens.start, *short, *[tokens.pad] * rest]
    assert batch.target.tolist()[1] == [*short, tokens.stop, *[-100] * rest]


def test_what_is_said_of_many_pictures_is_said_of_each() -> None:
    for name, changes in (("digits", TINY), ("captions", GRIDS)):
        model, task = made(name, changes)
        asked = [picture for picture, _ in task.batches().items[:16]]
        model.train()
        together = describe(model, task.tokenizer, asked)
        assert model.training
        assert together == [describe(model, task.tokenizer, [p])[0] for p in asked]
        assert len(together) == 16


def test_a_model_learns_to_read_digits() -> None:
    model, task = made("digits", {**TINY, "d_model": 32, "d_ff": 64, "batch": 64})
    before = task.validate(model)
    fit(model, [*task.batches()][:120], lr=5e-3)
    assert task.validate(model) > max(0.6, before + 0.3)
    accuracy, of_pixels, difference = task.score(model)
    assert accuracy.value > 0.6
    assert of_pixels.value > 0.9
    assert difference.value == pytest.approx(accuracy.value - of_pixels.value)


def test_a_caption_can_name_the_right_digits_in_wrong_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, task = made("captions", GRIDS)
    asked: list[Any] = []

    def turned(model: Any, tokenizer: Any, pictures: Any) -> list[str]:
        texts = [text for _, text in asked]
        return [text.replace("above", "below") for text in texts]

    def keep(model: Any, tokenizer: Any, items: Any) -> list[Any]:
        asked.extend(items)
        return original(model, tokenizer, items)

    original = pictures._scores_of_captions
    monkeypatch.setattr(pictures, "describe", turned)
    monkeypatch.setattr(pictures, "_scores_of_captions", keep)
    whole, named = task.score(model)
    expected = sum("above" not in text for _, text in asked) / len(asked)
    assert whole.value == pytest.approx(expected)
    assert 0 < expected < 1
    assert (named.name, named.value) == ("digits named", 1.0)


def test_the_baseline_is_a_linear_model_of_the_pixels() -> None:
    known, unknown = handwritten_digits()
    train = [
        (image, str(int(n))) for image, n in zip(*vars(known).values(), strict=True)
    ]
    said = baseline(train, [*unknown.images])
    right = [int(a) == b for a, b in zip(said, unknown.labels.tolist(), strict=True)]
    assert sum(right) / len(right) > 0.9


@pytest.mark.parametrize(("name", "changes"), [("digits", TINY), ("captions", GRIDS)])
def test_a_run_is_trained_resumed_and_evaluated(
    name: str, changes: dict[str, Any], tmp_path: Any
) -> None:
    steps = {"steps": 4, "warmup": 1, "checkpoint_every": 2, "device": "cpu"}
    train(name, tmp_path, {**changes, **steps})
    before = (tmp_path / "model.safetensors").read_bytes()
    train(name, tmp_path, {**changes, **steps}, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    scores = evaluate_run(tmp_path, "cpu")
    assert all(-1 <= score.value <= 1 for score in scores)
