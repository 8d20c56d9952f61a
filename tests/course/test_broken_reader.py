"""The planted bugs do what their chapter says of them."""

import torch

from tfcourse.course.broken_reader import captions_of_others, cut_in_strips


def test_strips_have_the_shape_of_patches_and_are_none() -> None:
    images = torch.zeros(1, 8, 8)
    images[0, :4, :4] = 1
    strips = cut_in_strips(images, 4)
    assert strips.shape == (1, 4, 16)
    assert strips[0].amax(1).tolist() == [1, 1, 0, 0]  # one square, two pieces


def test_each_picture_gets_the_caption_of_another() -> None:
    captions = torch.arange(6).view(3, 2)
    moved = captions_of_others(captions)
    assert (moved != captions).all()
    assert sorted(moved.tolist()) == captions.tolist()
