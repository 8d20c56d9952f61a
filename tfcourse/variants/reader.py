"""One encoder for anything that can be cut into vectors: patches, sounds, bases."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Stack


class Reader(nn.Module):
    """A Transformer's encoder with a way in for each kind of input, and questions.

    `widths` names the kinds and says how many numbers one piece of each has: a linear
    map with a bias of its own makes a vector of it. In front stand
    `questions` learned vectors, and the answers, each one of `classes`, are due at
    them (a class token, Dosovitskiy et al. 2021, section 3.1, is one question). Pieces
    are numbered in the order they are given, all kinds in a row; `max_seq_len` must
    have room for the questions too. A decoder, no kind and no question raise
    `ValueError`.
    """

    def __init__(
        self,
        config: TransformerConfig,
        widths: Mapping[str, int],
        *,
        classes: int,
        questions: int = 1,
    ) -> None:
        if config.num_decoder_layers or not widths or questions < 1:
            raise ValueError(
                "a reader has an encoder alone, a kind of input and a question, not "
                f"num_decoder_layers={config.num_decoder_layers}, widths={widths} and "
                f"questions={questions}"
            )
        super().__init__()
        width = config.d_model
        self.config = config
        self.ways_in = nn.ModuleDict(
            {kind: nn.Linear(size, width) for kind, size in widths.items()}
        )
        self.questions = nn.Parameter(torch.randn(questions, width) * width**-0.5)
        self.stack = Stack(config, is_decoder=False)
        self.way_out = nn.Linear(width, classes)

    def forward(
        self, **pieces: Float[Tensor, "batch _ _"]
    ) -> Float[Tensor, "batch questions classes"]:
        """Return the logits of all answers; an unknown kind raises `ValueError`."""
        unknown = sorted(set(pieces) - set(self.ways_in))
        if unknown or not pieces:
            known = ", ".join(self.ways_in)
            raise ValueError(f"pieces are of the kinds {known}, not {unknown}")
        parts = [self.ways_in[kind](given) for kind, given in pieces.items()]
        asked = self.questions.expand(len(parts[0]), -1, -1)
        seen = self.stack(torch.cat((asked, *parts), dim=1))
        return self.way_out(seen[:, : len(self.questions)])
