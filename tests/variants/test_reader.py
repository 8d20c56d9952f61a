"""The reader: one encoder, several kinds of input, answers in front."""

import pytest
import torch

from tfcourse.model.config import TransformerConfig
from tfcourse.variants.reader import Reader


def config(**changes: object) -> TransformerConfig:
    sizes = {"vocab_size": 1, "d_model": 16, "num_heads": 2, "d_ff": 32,
             "max_seq_len": 12, "num_encoder_layers": 2,
             "position": "learned"}  # fmt: skip
    return TransformerConfig(**{**sizes, **changes})


def test_each_question_gets_an_answer_from_all_kinds() -> None:
    model = Reader(config(), {"patch": 4, "frame": 5}, classes=3, questions=2)
    patch = torch.randn(6, 4, 4, requires_grad=True)
    frame = torch.randn(6, 3, 5, requires_grad=True)
    answers = model(patch=patch, frame=frame)
    assert answers.shape == (6, 2, 3)
    (answers * torch.randn_like(answers)).sum().backward()
    for given in (patch, frame):
        assert given.grad is not None
        assert (given.grad.abs().sum(-1) > 0).all()


def test_one_kind_may_be_missing() -> None:
    model = Reader(config(), {"patch": 4, "frame": 5}, classes=3)
    assert model(frame=torch.randn(2, 3, 5)).shape == (2, 1, 3)


def test_the_order_of_pieces_matters() -> None:
    model = Reader(config(), {"patch": 4}, classes=3).eval()
    patch = torch.randn(1, 5, 4)
    assert not torch.allclose(model(patch=patch), model(patch=patch.flip(1)))


@pytest.mark.parametrize(
    "pieces", [{}, {"smell": torch.ones(1, 2, 4)}], ids=["none", "unknown"]
)
def test_no_kind_and_an_unknown_one_are_refused(pieces: dict) -> None:
    model = Reader(config(), {"patch": 4}, classes=3)
    with pytest.raises(ValueError, match="of the kinds patch"):
        model(**pieces)


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({"num_decoder_layers": 1}, {}),
        ({}, {"widths": {}}),
        ({}, {"questions": 0}),
    ],
)
def test_what_cannot_read_is_refused(changes: dict, arguments: dict) -> None:
    given = {"widths": {"patch": 4}, "classes": 2, **arguments}
    widths = given.pop("widths")
    with pytest.raises(ValueError, match="an encoder alone"):
        Reader(config(**changes), widths, **given)
