"""The shapes that are timed, our config for each style of them, and their batches."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from tfcourse.data.pairs import IGNORE, Batch
from tfcourse.model.config import TransformerConfig

Family = Literal["decoder", "encoder", "encoder-decoder"]
# In which details the models of one comparison agree; each peer has one of them.
Style = Literal["biased", "plain", "t5"]


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and of what it reads; `layers` are of each stack."""

    name: str
    family: Family
    width: int
    heads: int
    layers: int
    length: int
    batch: int
    vocab: int

    def __str__(self) -> str:
        layers = f"{self.layers}+{self.layers}" if "-" in self.family else self.layers
        return (
            f"{self.family}, d {self.width}, {layers} layers, T {self.length}, "
            f"batch {self.batch}"
        )


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("decoder-384", "decoder", 384, 6, 6, 256, 8, 65),
        Shape("decoder-128", "decoder", 128, 4, 2, 32, 64, 65),
        Shape("encoder-decoder-128", "encoder-decoder", 128, 4, 4, 32, 64, 1000),
        Shape("encoder-256", "encoder", 256, 4, 4, 128, 16, 1000),
    )
}


def config_of(shape: Shape, style: Style) -> TransformerConfig:
    """Return our config of a shape in a style.

    "biased" is what GPT-2, BERT, Marian and `torch.nn` share, "plain" what
    x-transformers builds, which has no bias anywhere, and "t5" T5 version 1.0.
    """
    common: dict[str, Any] = {
        "vocab_size": shape.vocab,
        "d_model": shape.width,
        "num_heads": shape.heads,
        "d_ff": 4 * shape.width,
        "max_seq_len": shape.length,
        "num_encoder_layers": 0 if shape.family == "decoder" else shape.layers,
        "num_decoder_layers": 0 if shape.family == "encoder" else shape.layers,
        "activation": "gelu",
        "position": "learned",
        "scale_embedding": False,
    }
    return TransformerConfig(**common | _options(shape, style))


def _options(shape: Shape, style: Style) -> dict[str, Any]:
    if style == "plain":
        tied = shape.family != "encoder-decoder"
        return {"bias": False, "tie_embeddings": tied, "scale_logits": tied}
    if style == "t5":
        return {
            "position": "relative",
            "norm": "rms",
            "norm_eps": 1e-6,
            "activation": "relu",
            "bias": False,
            "scale_scores": False,
            "scale_logits": True,
        }
    if shape.family == "encoder":
        return {
            "norm_order": "post",
            "norm_eps": 1e-12,
            "embedding_norm": True,
            "num_segments": 2,
            "head": "mlm",
            "head_bias": True,
        }
    if shape.family == "encoder-decoder":
        return {
            "norm_order": "post",
            "position": "sinusoidal",
            "scale_embedding": True,
            "activation": "relu",
        }
    return {}


def random_batch(shape: Shape, seed: int = 0) -> Batch:
    """Return random tokens; where there is an encoder, half of the rows' ends are pads.

    Lengths are uniform between half of `shape.length` and all of it. What the decoder
    of an encoder-decoder reads is padded as well, where no loss is taken.
    """
    draw = torch.Generator().manual_seed(seed)
    size = shape.batch, shape.length
    tokens = torch.randint(shape.vocab, size, generator=draw)
    target = torch.randint(shape.vocab, size, generator=draw)
    if shape.family == "decoder":
        return Batch(tokens=tokens, target=target)
    valid = _valid(shape, draw)
    if shape.family == "encoder":
        target = target.masked_fill(~valid, IGNORE)
        return Batch(tokens=tokens, target=target, valid=valid)
    source = torch.randint(shape.vocab, size, generator=draw)
    target = target.masked_fill(~_valid(shape, draw), IGNORE)
    return Batch(tokens=tokens, target=target, source=source, source_valid=valid)


def _valid(shape: Shape, draw: torch.Generator) -> torch.Tensor:
    shortest = max(1, shape.length // 2)
    length = torch.randint(shortest, shape.length + 1, (shape.batch, 1), generator=draw)
    return torch.arange(shape.length) < length
