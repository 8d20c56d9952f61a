"""The whole model: embeddings, stacks of blocks, and the head that makes logits."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tfcourse.model.cache import KVCache
from tfcourse.model.config import TransformerConfig
from tfcourse.model.init import init_xavier
from tfcourse.model.layers import Block, Scope, make_mlm_transform, make_norm
from tfcourse.model.masks import MaskRule, both, causal, dense
from tfcourse.model.positions import Places, position_scheme

Tokens = Int[Tensor, "batch seq"]
Source = Int[Tensor, "batch source"]
Hidden = Float[Tensor, "batch seq d_model"]
Memory = Float[Tensor, "batch source d_model"]
Output = Literal["logits", "last", "hidden"]


class Stack(nn.Module):
    """An encoder, where all tokens see each other, or a decoder: blocks in a row.

    With pre-norm, a last norm closes the residual stream.
    """

    def __init__(self, config: TransformerConfig, *, is_decoder: bool) -> None:
        super().__init__()
        self.is_decoder, self.config = is_decoder, config
        layers = config.num_decoder_layers if is_decoder else config.num_encoder_layers
        crossed = is_decoder and config.num_encoder_layers > 0
        self.positions = position_scheme(config, causal=is_decoder)
        self.first_norm = make_norm(config) if config.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config, has_cross_attention=crossed) for _ in range(layers)
        )
        pre = config.norm_order == "pre"
        self.last_norm = make_norm(config) if pre else nn.Identity()

    def forward(
        self,
        x: Hidden,
        memory: Memory | None = None,
        *,
        mask: MaskRule | None = None,
        memory_mask: MaskRule | None = None,
        position: Places | None = None,
        cache: KVCache | None = None,
    ) -> Hidden:
        """Add positions to token vectors and pass them through all blocks."""
        read = KVCache() if cache is None else cache
        query, key = read.slots(x)
        limit = self.config.max_seq_len
        if len(key) > limit and (position is None or cache is not None):
            raise ValueError(f"{len(key)} tokens are more than max_seq_len={limit}")
        position = query[None] if position is None else position
        own = self._own_scope(mask, len(x), query, key, position, read)
        cross: Scope = {}
        if memory is not None:
            slot = torch.arange(memory.shape[1], device=x.device)
            cross["mask"] = self._write_out(memory_mask, len(x), query, slot)
        added = self.positions.embed(position)
        x = self.dropout(self.first_norm(x if added is None else x + added))
        for index, block in enumerate(self.blocks):
            layer = None if cache is None else cache.layer(index)
            x = block(x, memory, own=own, cross=cross, cache=layer)
        read.advance(len(query))
        return self.last_norm(x)

    def _own_scope(
        self,
        mask: MaskRule | None,
        rows: int,
        query: Tensor,
        key: Tensor,
        position: Tensor,
        read: KVCache,
    ) -> Scope:
        """Write out, once for all blocks, what each token may see of its own kind."""
        bias = self.positions.bias(position, read.place(position))
        is_causal = False
        if self.is_decoder:
            # SDPA's is_causal aligns queries with the first keys, so it is right only
            # where nothing was read before; a single query may see all that was.
            is_causal = mask is None and bias is None and len(key) == len(query)
            sees_all = len(query) == 1 and not read.has_unread_slots
            if not is_causal and not (mask is None and sees_all):
                mask = both(causal, mask)
        return {
            "mask": self._write_out(mask, rows, query, key),
            "bias": bias,
            "rotation": self.positions.rotation(position),
            "is_causal": is_causal,
        }

    def _write_out(
        self, rule: MaskRule | None, rows: int, query: Tensor, key: Tensor
    ) -> Tensor | None:
        if rule is None:
            return None
        heads = self.config.num_heads
        return dense(rule, batch=rows, heads=heads, query=query, key=key)


class Transformer(nn.Module):
    """Encoder-decoder, encoder-only or decoder-only, as the config's layer counts say.

    The embedding is shared by encoder, decoder and (if tied) head, as in Vaswani et al.
    2017, section 3.4. Weights start by `init_xavier`.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        vocab, width, segments = config.vocab_size, config.d_model, config.num_segments
        self.embedding = nn.Embedding(vocab, width)
        self.segments = nn.Embedding(segments, width) if segments else None
        self.encoder = (
            Stack(config, is_decoder=False) if config.num_encoder_layers else None
        )
        self.decoder = (
            Stack(config, is_decoder=True) if config.num_decoder_layers else None
        )
        is_mlm, is_tied = config.head == "mlm", config.tie_embeddings
        self.head_transform = make_mlm_transform(config) if is_mlm else None
        self.unembedding = None if is_tied else nn.Linear(width, vocab, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(vocab)) if config.head_bias else None
        init_xavier(self)

    def forward(
        self,
        tokens: Tokens,
        source: Source | None = None,
        *,
        mask: MaskRule | None = None,
        source_mask: MaskRule | None = None,
        memory: Memory | None = None,
        memory_mask: MaskRule | None = None,
        position: Places | None = None,
        source_position: Int[Tensor, "#batch source"] | None = None,
        segment: Places | None = None,
        cache: KVCache | None = None,
        output: Output = "logits",
    ) -> Float[Tensor, "batch out features"]:
        """Return the logits of each token, of the last one, or the vectors below.

        `mask` and `source_mask` say which tokens and source tokens may be attended to,
        `memory_mask` which of these by the decoder, if not all; it is causal besides.
        `memory` is an encoder's output. Positions are 0, 1, 2 ... after what the cache
        has read, segments 0, by default. What the config rules out raises `ValueError`.
        """
        told = source_mask, memory_mask, source_position
        self._check_call(tokens, source, memory, told, cache, output)
        if self.decoder is None:
            x = self.encode(tokens, mask, position, segment)
        else:
            x = self._embed(tokens, position, segment)
            if source is not None:
                memory = self.encode(source, source_mask, source_position)
            x = self.decoder(
                x,
                memory,
                mask=mask,
                memory_mask=memory_mask or source_mask,
                position=position,
                cache=cache,
            )
        x = x[:, -1:] if output == "last" else x
        return x if output == "hidden" else self.head(x)

    def encode(
        self,
        source: Source,
        source_mask: MaskRule | None = None,
        position: Places | None = None,
        segment: Places | None = None,
    ) -> Memory:
        """Return one vector for each token of the source, which sees all others."""
        if self.encoder is None:
            raise ValueError("this model has num_encoder_layers=0: nothing encodes")
        x = self._embed(source, position, segment)
        return self.encoder(x, mask=source_mask, position=position)

    def head(self, hidden: Hidden) -> Float[Tensor, "batch seq vocab"]:
        """Turn vectors of width d_model into logits over the vocabulary."""
        if self.head_transform is not None:
            hidden = self.head_transform(hidden)
        if self.config.scale_logits:
            hidden = hidden * self.config.d_model**-0.5
        layer = self.embedding if self.unembedding is None else self.unembedding
        return F.linear(hidden, layer.weight, self.head_bias)

    def _embed(
        self, tokens: Tensor, position: Tensor | None, segment: Tensor | None
    ) -> Tensor:
        """Check what a caller gave for each token; return the tokens' vectors."""
        integers = tokens.dtype in (torch.int64, torch.int32)
        if tokens.dim() != 2 or tokens.numel() == 0 or not integers:
            raise ValueError(
                "tokens must be int64 or int32 [batch, seq] with at least one token, "
                f"not {tokens.dtype} of shape {tuple(tokens.shape)}"
            )
        _check_index("token id", tokens, self.config.vocab_size, tokens)
        if position is not None:
            _check_index("position", position, self.config.max_seq_len, tokens)
        x = self.embedding(tokens)
        if self.config.scale_embedding:
            x = x * self.config.d_model**0.5
        if self.segments is not None:
            segment = torch.zeros_like(tokens) if segment is None else segment
            _check_index("segment", segment, self.config.num_segments, tokens)
            return x + self.segments(segment)
        if segment is not None:
            raise ValueError("num_segments=0: this model takes no segments")
        return x

    def _check_call(
        self,
        tokens: Tensor,
        source: Tensor | None,
        memory: Tensor | None,
        told: tuple[object, ...],
        cache: KVCache | None,
        output: str,
    ) -> None:
        if output not in get_args(Output):
            known = ", ".join(get_args(Output))
            raise ValueError(f"output must be one of {known}, not {output!r}")
        given = [part for part in (source, memory) if part is not None]
        config = self.config
        encoder, decoder = config.num_encoder_layers, config.num_decoder_layers
        if encoder and decoder and len(given) != 1:
            raise ValueError(
                "an encoder-decoder takes either source or memory, "
                f"but {len(given)} of the two were given"
            )
        if not (encoder and decoder) and (given or any(x is not None for x in told)):
            raise ValueError(
                f"num_encoder_layers={encoder} and num_decoder_layers={decoder}: "
                "only an encoder-decoder takes a source, its masks or its positions"
            )
        if not decoder and cache is not None:
            raise ValueError("an encoder sees all tokens at once: it takes no cache")
        for part in given:
            if len(part) != len(tokens):
                raise ValueError(
                    f"{len(tokens)} rows of tokens, but {len(part)} of source"
                )


def _check_index(name: str, index: Tensor, limit: int, tokens: Tensor) -> None:
    if index.shape not in (tokens.shape, tokens[:1].shape):
        raise ValueError(
            f"{name}s {tuple(index.shape)} do not match tokens {tuple(tokens.shape)}"
        )
    # CUDA reports a wrong index itself, and to ask it would stall its queue.
    if torch.compiler.is_compiling() or index.device.type in ("cuda", "meta"):
        return
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= limit:
        wrong = low if low < 0 else high
        raise ValueError(f"{name} {wrong} is outside 0 ... {limit - 1}")
