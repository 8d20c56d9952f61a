"""A Transformer that reads pictures: patches in order, one model of two shapes."""

from typing import Any

import pytest
import torch
from small_models import no_shape_checks, small_config
from torch import nn

from tfcourse.generation import beam_search, generate
from tfcourse.model.cache import KVCache
from tfcourse.probes import assert_cache_equals_full, assert_causal
from tfcourse.variants.pictures import PictureTransformer


def reader(kind: str = "encoder-decoder", patch: int = 2, **options: Any):
    config = small_config(kind, **{"max_seq_len": 32, **options})
    return PictureTransformer(config, patch).eval()


PICTURES = torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(0))


def test_patches_are_squares_row_by_row_each_through_one_linear_map() -> None:
    model = reader()
    vectors = model._see(PICTURES)
    assert vectors.shape == (3, 6, 8)
    for place in range(6):
        top, left = 2 * (place // 2), 2 * (place % 2)
        square = PICTURES[:, top : top + 2, left : left + 2].reshape(3, 4)
        torch.testing.assert_close(vectors[:, place], model.of_patch(square))


def test_patches_equal_a_convolution_that_steps_by_its_own_width() -> None:
    model = reader()
    convolution = nn.Conv2d(1, 8, kernel_size=2, stride=2)
    with torch.no_grad():
        convolution.weight.copy_(model.of_patch.weight.view(8, 1, 2, 2))
        convolution.bias.copy_(model.of_patch.bias)
    theirs = convolution(PICTURES[:, None]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model._see(PICTURES), theirs)


def test_a_decoder_reads_what_the_encoder_made_of_the_picture() -> None:
    model = reader()
    tokens = torch.tensor([[1, 4, 5]]).expand(3, -1)
    logits = model(tokens, PICTURES)
    memory = model.encode(PICTURES)
    assert logits.shape == (3, 3, model.config.vocab_size)
    torch.testing.assert_close(logits, model(tokens, memory=memory))
    torch.testing.assert_close(
        model(tokens, PICTURES, output="last"), logits[:, -1:], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        model.head(model(tokens, PICTURES, output="hidden")), logits
    )
    assert not torch.allclose(logits, model(tokens, PICTURES.flip(1)), atol=1e-3)


def test_the_decoder_stays_causal_and_its_cache_right() -> None:
    model = reader()
    memory = model.encode(PICTURES[:1])

    def logits(tokens: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        return model(tokens, memory=memory, cache=cache)

    tokens = torch.tensor([[1, 4, 5, 6, 7]])
    assert_causal(logits, tokens)
    assert_cache_equals_full(logits, tokens)


def test_without_a_decoder_the_answer_is_due_where_the_tokens_stand() -> None:
    model = reader("encoder")
    start = torch.ones(3, 1, dtype=torch.long)
    logits = model(start, PICTURES)
    assert logits.shape == (3, 1, model.config.vocab_size)
    x = torch.cat((model._embed(start, None, None), model._see(PICTURES)), dim=1)
    torch.testing.assert_close(logits, model.head(model.encoder(x)[:, :1]))
    hidden = model(start, PICTURES, output="hidden")
    torch.testing.assert_close(model.head(hidden), logits)
    two = torch.tensor([[1, 2]]).expand(3, -1)
    torch.testing.assert_close(
        model(two, PICTURES, output="last"),
        model(two, PICTURES)[:, 1:],
        rtol=1e-4,
        atol=1e-5,
    )


def test_each_patch_moves_the_answer_and_so_does_its_place() -> None:
    model = reader("encoder")
    start = torch.ones(1, 1, dtype=torch.long)
    before = model(start, PICTURES[:1])
    for top in (0, 2, 4):
        for left in (0, 2):
            changed = PICTURES[:1].clone()
            changed[:, top : top + 2, left : left + 2] += 1
            assert (model(start, changed) - before).abs().max() > 1e-3
    exchanged = PICTURES[:1].roll(2, dims=2)  # the two patches of each row
    assert (model(start, exchanged) - before).abs().max() > 1e-3


def test_generation_takes_pictures_as_the_source() -> None:
    model = reader()
    prompt = torch.ones(3, 1, dtype=torch.long)
    together = generate(model, prompt, max_new_tokens=5, source=PICTURES)
    alone = [
        generate(model, prompt[:1], max_new_tokens=5, source=picture[None])
        for picture in PICTURES
    ]
    assert torch.equal(together, torch.cat(alone))
    beams, _ = beam_search(
        model, prompt, max_new_tokens=5, num_beams=1, source=PICTURES, stop_token=2
    )
    stopping = generate(model, prompt, max_new_tokens=5, source=PICTURES, stop_token=2)
    assert torch.equal(beams[:, : stopping.shape[1]], stopping)


@pytest.mark.parametrize(
    ("kind", "patch", "message"),
    [
        ("encoder", 0, "patch=0 and num_encoder_layers=2"),
        ("decoder", 2, "patch=2 and num_encoder_layers=0"),
    ],
)
def test_what_cannot_read_pictures_is_refused(
    kind: str, patch: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        reader(kind, patch)


@pytest.mark.parametrize("kind", ["encoder", "encoder-decoder"])
def test_pictures_that_are_missing_or_cut_are_refused(kind: str) -> None:
    model = reader(kind)
    tokens = torch.ones(3, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="source"):
        model(tokens)
    with pytest.raises(ValueError, match=r"patches of 2 pixels, not \(3, 6, 3\)"):
        model(tokens, PICTURES[:, :, :3])
    with (
        no_shape_checks(),
        pytest.raises(ValueError, match=r"patches of 2 pixels, not \(3, 24\)"),
    ):
        model(tokens, PICTURES.flatten(1))
