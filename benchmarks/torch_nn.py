"""The three families built of `torch.nn.Transformer*`, as a user of them would."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.shapes import Shape
from tfcourse.data.pairs import Batch
from tfcourse.model.positions import sinusoids


class TorchNN(nn.Module):
    """Embeddings, `nn.TransformerEncoder` and `Decoder`, a head tied to the embedding.

    A decoder alone is an encoder with a causal mask: `nn.TransformerDecoder` cannot
    leave out its cross-attention.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.family, self.width = shape.family, shape.width
        crossed = shape.family == "encoder-decoder"
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        self.places: nn.Embedding | None = None
        if crossed:
            table = sinusoids(torch.arange(shape.length), shape.width)
            self.register_buffer("table", table, persistent=False)
        else:
            self.places = nn.Embedding(shape.length, shape.width)
        self.table: Tensor
        causal = nn.Transformer.generate_square_subsequent_mask(shape.length)
        self.register_buffer("causal", causal, persistent=False)
        self.causal: Tensor
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**_layer(shape)),
            shape.layers,
            norm=nn.LayerNorm(shape.width) if shape.family == "decoder" else None,
            enable_nested_tensor=False,
        )
        if crossed:
            layer = nn.TransformerDecoderLayer(**_layer(shape))
            self.decoder = nn.TransformerDecoder(layer, shape.layers)
        if shape.family == "encoder":
            self._add_parts_of_bert(shape)

    def _add_parts_of_bert(self, shape: Shape) -> None:
        self.segments = nn.Embedding(2, shape.width)
        self.first_norm = nn.LayerNorm(shape.width, eps=1e-12)
        self.dense = nn.Linear(shape.width, shape.width)
        self.dense_norm = nn.LayerNorm(shape.width, eps=1e-12)
        self.head_bias = nn.Parameter(torch.zeros(shape.vocab))

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits, [batch, seq, vocab]."""
        if self.family == "decoder":
            x = self.encoder(self._place(batch.tokens), self.causal, is_causal=True)
            return F.linear(x, self.embedding.weight)
        if self.family == "encoder":
            assert batch.valid is not None
            x = self._place(batch.tokens) + self.segments.weight[0]
            x = self.encoder(self.first_norm(x), src_key_padding_mask=~batch.valid)
            x = self.dense_norm(F.gelu(self.dense(x)))
            return F.linear(x, self.embedding.weight, self.head_bias)
        assert batch.source is not None
        assert batch.source_valid is not None
        pad = ~batch.source_valid
        memory = self.encoder(self._place(batch.source), src_key_padding_mask=pad)
        x = self.decoder(
            self._place(batch.tokens),
            memory,
            tgt_mask=self.causal,
            tgt_is_causal=True,
            memory_key_padding_mask=pad,
        )
        return F.linear(x, self.embedding.weight)

    def _place(self, tokens: Tensor) -> Tensor:
        if self.places is None:
            return self.embedding(tokens) * self.width**0.5 + self.table
        return self.embedding(tokens) + self.places.weight


def _layer(shape: Shape) -> dict[str, Any]:
    return {
        "d_model": shape.width,
        "nhead": shape.heads,
        "dim_feedforward": 4 * shape.width,
        "dropout": 0.0,
        "activation": "relu" if shape.family == "encoder-decoder" else "gelu",
        "layer_norm_eps": 1e-12 if shape.family == "encoder" else 1e-5,
        "batch_first": True,
        "norm_first": shape.family == "decoder",
    }


def names(shape: Shape) -> dict[str, str]:
    """Return our name of each weight of a `TorchNN`, by its name there."""
    if shape.family == "decoder":
        stacks, last = {"encoder": "decoder"}, {"encoder.norm": "decoder.last_norm"}
    else:
        stacks, last = {"encoder": "encoder", "decoder": "decoder"}, {}
    pairs = {"embedding": "embedding", **last}
    if shape.family == "encoder":
        pairs |= {"segments": "segments", "first_norm": "encoder.first_norm"}
        pairs |= {"dense": "head_transform.0", "dense_norm": "head_transform.2"}
    if shape.family != "encoder-decoder":
        pairs["places"] = f"{shape.family}.positions.table"
    for theirs, ours in stacks.items():
        crossed = theirs == "decoder"
        for number in range(shape.layers):
            before, after = f"{theirs}.layers.{number}", f"{ours}.blocks.{number}"
            for name, other in _parts(crossed).items():
                pairs[f"{before}.{name}"] = f"{after}.{other}"
    return pairs


def _parts(crossed: bool) -> dict[str, str]:
    parts = {
        "self_attn.in_proj": "self_attention.project_in",
        "self_attn.out_proj": "self_attention.project_out",
        "norm1": "around_self.norm",
        "linear1": "feed_forward.widen",
        "linear2": "feed_forward.narrow",
        "norm2": "around_feed_forward.norm",
    }
    if crossed:
        parts |= {
            "multihead_attn.in_proj": "cross_attention.project_in",
            "multihead_attn.out_proj": "cross_attention.project_out",
            "norm2": "around_cross.norm",
            "norm3": "around_feed_forward.norm",
        }
    return parts
