"""Mistakes where pictures meet a Transformer: wrong patches, wrong captions."""

from __future__ import annotations

from torch import Tensor


def cut_in_strips(images: Tensor, patch: int) -> Tensor:
    """Return pieces of patch x patch pixels that are no squares: parts of rows.

    The shape is that of patches, since a reshape only regroups pixels in reading order.
    """
    return images.reshape(len(images), -1, patch * patch)


def captions_of_others(captions: Tensor) -> Tensor:
    """Return the rows shifted by one, so that each picture gets the next one's."""
    return captions.roll(-1, 0)
