"""The one description from which every Transformer in the course is built."""

from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

Position = Literal["none", "sinusoidal", "learned", "relative", "rotary", "alibi"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes and options of a Transformer; impossible values raise `ValueError`.

    There is no `kind`: the layer counts decide. Encoder and decoder layers make the
    2017 model, encoder layers alone BERT's shape, decoder layers alone GPT's.

    `num_kv_heads` below `num_heads` shares keys and values between query heads
    (Ainslie et al. 2023, grouped-query attention); `head_dim` is d_model / num_heads
    unless it is given. `dropout` is of embeddings and of what each sub-layer adds
    (Vaswani et al. 2017, section 5.4); `inner_dropout`, of attention weights and of the
    feed-forward's hidden units, is the same unless it is given. Source of the sizes:
    Vaswani et al. 2017, table 3.
    """

    vocab_size: int
    d_model: int
    num_heads: int
    d_ff: int
    max_seq_len: int
    num_encoder_layers: int = 0
    num_decoder_layers: int = 0
    num_kv_heads: int | None = None
    head_dim: int | None = None
    dropout: float = 0.0
    inner_dropout: float | None = None
    position: Position = "sinusoidal"
    rotary_base: float = 10_000.0
    relative_buckets: int = 32
    relative_max_distance: int = 128
    norm: Literal["layer", "rms"] = "layer"
    norm_order: Literal["pre", "post"] = "pre"
    norm_eps: float = 1e-5
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "relu"
    gated: bool = False
    bias: bool = True
    scale_scores: bool = True
    scale_embedding: bool = True
    embedding_norm: bool = False
    num_segments: int = 0
    tie_embeddings: bool = True
    head: Literal["linear", "mlm"] = "linear"
    head_bias: bool = False
    scale_logits: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        self._check_sizes()
        self._check_heads()
        self._check_positions()

    @property
    def kv_heads(self) -> int:
        """Heads that keys and values have."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def width_per_head(self) -> int:
        """Features of one head: `head_dim`, or d_model / num_heads."""
        return self.head_dim or self.d_model // self.num_heads

    @property
    def dropout_within(self) -> float:
        """Dropout of attention weights and hidden units."""
        return self.dropout if self.inner_dropout is None else self.inner_dropout

    def _check_types(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value, allowed = getattr(self, name), get_args(kind) or (kind,)
            if get_origin(kind) is Literal:
                fits, wanted = value in allowed, f"one of {', '.join(allowed)}"
            else:
                # Not isinstance: True is an int to Python, and a slip here.
                takes = (*allowed, int) if float in allowed else allowed
                fits = type(value) in takes
                wanted = f"of type {getattr(kind, '__name__', kind)}"
            if not fits:
                raise ValueError(f"{name} must be {wanted}, not {value!r}")

    def _check_sizes(self) -> None:
        for name in ("vocab_size", "d_model", "num_heads", "d_ff", "max_seq_len"):
            self._check_at_least(1, name)
        for name in ("num_encoder_layers", "num_decoder_layers", "num_segments"):
            self._check_at_least(0, name)
        if self.num_encoder_layers + self.num_decoder_layers == 0:
            raise ValueError(
                "num_encoder_layers and num_decoder_layers are both 0: "
                "a Transformer needs at least one layer"
            )
        if self.num_segments and self.num_encoder_layers and self.num_decoder_layers:
            raise ValueError(
                f"num_segments={self.num_segments}: an encoder-decoder has no segments"
            )
        for name in ("dropout", "inner_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), not {value}")
        if not 0 < self.norm_eps < 1:
            raise ValueError(f"norm_eps must be in (0, 1), not {self.norm_eps}")

    def _check_at_least(self, least: int, name: str) -> None:
        value = getattr(self, name)
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")

    def _check_heads(self) -> None:
        if self.head_dim is None and self.d_model % self.num_heads:
            raise ValueError(
                f"d_model={self.d_model} cannot be divided into "
                f"num_heads={self.num_heads} heads; choose a divisor or give head_dim"
            )
        if self.head_dim is not None:
            self._check_at_least(1, "head_dim")
        if self.kv_heads < 1 or self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_kv_heads={self.kv_heads} must divide num_heads={self.num_heads}"
            )

    def _check_positions(self) -> None:
        if self.position == "rotary" and self.width_per_head % 2:
            raise ValueError(
                "rotary positions turn pairs of features: the width of a head must be "
                f"even, not {self.width_per_head}"
            )
        if self.position == "sinusoidal" and self.d_model % 2:
            raise ValueError(
                "sinusoidal positions come in pairs of sine and cosine: d_model must "
                f"be even, not {self.d_model}"
            )
        if not self.rotary_base > 1:
            raise ValueError(f"rotary_base must be above 1, not {self.rotary_base}")
        buckets, farthest = self.relative_buckets, self.relative_max_distance
        if buckets < 4 or buckets % 2 or farthest <= buckets // 2:
            raise ValueError(
                "relative_buckets must be even and at least 4, and at most twice "
                f"relative_max_distance: not {buckets} and {farthest}"
            )
