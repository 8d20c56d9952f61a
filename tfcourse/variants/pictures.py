"""A Transformer whose encoder reads pictures: patches take the place of tokens."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tfcourse.model.config import TransformerConfig
from tfcourse.model.init import init_xavier
from tfcourse.model.masks import MaskRule
from tfcourse.model.positions import Places
from tfcourse.model.transformer import Output, Transformer

Pictures = Float[Tensor, "batch height width"]


class PictureTransformer(Transformer):
    """The model of the course, given pictures as its source.

    A picture is cut into squares of `patch` x `patch` pixels, row by row, and each
    square becomes a vector by one linear map (Dosovitskiy et al. 2021, section 3.1).
    With a decoder, the encoder reads the patches and the decoder writes about them.
    Without one, the tokens stand in front of the patches and the answers are due at
    them, as at the paper's class token. `max_seq_len` must have room for all of it.
    A patch below 1 and a model without an encoder raise `ValueError`.
    """

    def __init__(self, config: TransformerConfig, patch: int) -> None:
        if patch < 1 or config.num_encoder_layers == 0:
            raise ValueError(
                "pictures need a patch of at least 1 pixel and an encoder, not "
                f"patch={patch} and num_encoder_layers={config.num_encoder_layers}"
            )
        super().__init__(config)
        self.patch = patch
        self.of_patch = nn.Linear(patch * patch, config.d_model)
        init_xavier(self.of_patch)

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        source: Pictures | None = None,
        *,
        memory: Float[Tensor, "batch source d_model"] | None = None,
        output: Output = "logits",
        **options: Any,
    ) -> Float[Tensor, "batch out features"]:
        """Return what `Transformer.forward` does, for pictures as the source.

        Neither pictures nor an encoder's output of them, and pictures that are not
        whole patches, raise `ValueError`.
        """
        if self.decoder is not None:
            memory = self.encode(source) if source is not None else memory
            return super().forward(tokens, memory=memory, output=output, **options)
        if source is None:
            raise ValueError("this model answers about pictures: source is missing")
        assert self.encoder is not None
        x = torch.cat((self._embed(tokens, None, None), self._see(source)), dim=1)
        x = self.encoder(x)[:, : tokens.shape[1]]
        if output == "hidden":
            return x
        return self.head(x[:, -1:] if output == "last" else x)

    def encode(
        self,
        source: Pictures,
        source_mask: MaskRule | None = None,
        position: Places | None = None,
        segment: Places | None = None,
    ) -> Float[Tensor, "batch patches d_model"]:
        """Return one vector for each patch of the pictures."""
        assert self.encoder is not None
        return self.encoder(self._see(source), mask=source_mask, position=position)

    def _see(self, pictures: Pictures) -> Float[Tensor, "batch patches d_model"]:
        sides, patch = tuple(pictures.shape[1:]), self.patch
        if len(sides) != 2 or any(side % patch for side in sides):
            raise ValueError(
                f"pictures must be [batch, height, width] in whole patches of {patch} "
                f"pixels, not {tuple(pictures.shape)}"
            )
        rows = pictures.unfold(1, patch, patch).unfold(2, patch, patch)
        return self.of_patch(rows.flatten(3).flatten(1, 2))
