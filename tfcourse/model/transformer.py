"""The whole model: embeddings, stacks of blocks, and the head that makes logits."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tfcourse.model.cache import KVCache
from tfcourse.model.config import TransformerConfig
from tfcourse.model.init import init_xavier
from tfcourse.model.layers import Block, make_norm
from tfcourse.model.masks import MaskRule, both, causal, dense
from tfcourse.model.positions import Rotation, position_scheme

Tokens = Int[Tensor, "batch seq"]
Hidden = Float[Tensor, "batch seq d_model"]


class Stack(nn.Module):
    """Blocks in a row; with pre-norm, a last norm closes the residual stream."""

    def __init__(
        self, config: TransformerConfig, layers: int, *, has_cross_attention: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(config, has_cross_attention=has_cross_attention)
            for _ in range(layers)
        )
        pre = config.norm_order == "pre"
        self.last_norm = make_norm(config) if pre else nn.Identity()

    def forward(
        self,
        x: Hidden,
        memory: Float[Tensor, "batch source d_model"] | None = None,
        *,
        mask: Bool[Tensor, "..."] | None = None,
        memory_mask: Bool[Tensor, "..."] | None = None,
        rotation: Rotation | None = None,
        is_causal: bool = False,
        cache: KVCache | None = None,
    ) -> Hidden:
        """Pass x through all blocks; the masks are written out once for all of them."""
        for index, block in enumerate(self.blocks):
            x = block(
                x,
                memory,
                mask=mask,
                memory_mask=memory_mask,
                rotation=rotation,
                is_causal=is_causal,
                cache=None if cache is None else cache.layer(index),
            )
        return self.last_norm(x)


class Transformer(nn.Module):
    """Encoder-decoder, encoder-only or decoder-only, as the config's layer counts say.

    The embedding is shared by encoder, decoder and (if tied) head, as in Vaswani et al.
    2017, section 3.4. Weights start by `init_xavier`.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = position_scheme(config)
        self.dropout = nn.Dropout(config.dropout)
        encoder, decoder = config.num_encoder_layers, config.num_decoder_layers
        self.encoder = (
            Stack(config, encoder, has_cross_attention=False) if encoder else None
        )
        self.decoder = (
            Stack(config, decoder, has_cross_attention=encoder > 0) if decoder else None
        )
        self.unembedding = (
            None
            if config.tie_embeddings
            else nn.Linear(config.d_model, config.vocab_size, bias=False)
        )
        init_xavier(self)

    def forward(
        self,
        tokens: Tokens,
        source: Int[Tensor, "batch source"] | None = None,
        *,
        mask: MaskRule | None = None,
        source_mask: MaskRule | None = None,
        memory: Float[Tensor, "batch source d_model"] | None = None,
        position: Tokens | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq vocab"]:
        """Return logits for each token; the arguments are those of `hidden`."""
        hidden = self.hidden(
            tokens,
            source,
            mask=mask,
            source_mask=source_mask,
            memory=memory,
            position=position,
            cache=cache,
        )
        return self.head(hidden)

    def head(self, hidden: Hidden) -> Float[Tensor, "batch seq vocab"]:
        """Turn vectors of width d_model into logits over the vocabulary."""
        if self.unembedding is None:
            return F.linear(hidden, self.embedding.weight)
        return self.unembedding(hidden)

    def encode(
        self,
        source: Int[Tensor, "batch source"],
        *,
        source_mask: MaskRule | None = None,
        position: Int[Tensor, "batch source"] | None = None,
    ) -> Float[Tensor, "batch source d_model"]:
        """Return one vector for each token of the source, which sees all others."""
        if self.encoder is None:
            raise ValueError("this model has num_encoder_layers=0: nothing encodes")
        x, rotation = self._embed(source, position, 0)
        slot = torch.arange(source.shape[1], device=source.device)
        written = _write_out(source_mask, source.shape[0], slot, slot, self.config)
        return self.encoder(x, mask=written, rotation=rotation)

    def hidden(
        self,
        tokens: Tokens,
        source: Int[Tensor, "batch source"] | None = None,
        *,
        mask: MaskRule | None = None,
        source_mask: MaskRule | None = None,
        memory: Float[Tensor, "batch source d_model"] | None = None,
        position: Tokens | None = None,
        cache: KVCache | None = None,
    ) -> Hidden:
        """Return the last layer's vectors.

        `mask` and `source_mask` say which tokens and which source tokens may be
        attended to; a decoder is causal besides. `memory` is an encoder's output, if it
        is at hand already. `position` defaults to 0, 1, 2 ... after what the cache has
        read. A source where there is no encoder, none where there is one, ids outside
        the vocabulary and sequences over max_seq_len raise `ValueError`.
        """
        self._check_family(source, memory, source_mask, cache)
        if self.decoder is None:
            return self.encode(tokens, source_mask=mask, position=position)
        if memory is None and source is not None:
            memory = self.encode(source, source_mask=source_mask)
        if memory is not None and memory.shape[0] != tokens.shape[0]:
            raise ValueError(
                f"{tokens.shape[0]} rows of tokens, but {memory.shape[0]} of source"
            )
        return self._decode(tokens, memory, mask, source_mask, position, cache)

    def _decode(
        self,
        tokens: Tensor,
        memory: Tensor | None,
        mask: MaskRule | None,
        source_mask: MaskRule | None,
        position: Tensor | None,
        cache: KVCache | None,
    ) -> Tensor:
        assert self.decoder is not None
        read = 0 if cache is None else cache.length
        x, rotation = self._embed(tokens, position, read)
        rows, count = tokens.shape
        query = torch.arange(read, read + count, device=tokens.device)
        # SDPA's is_causal aligns queries with the first keys, so it is right only where
        # nothing has been read before; a single query may see all that was.
        is_causal = mask is None and read == 0
        own = None
        if not is_causal and (mask is not None or count > 1):
            key = torch.arange(read + count, device=tokens.device)
            own = _write_out(both(causal, mask), rows, query, key, self.config)
        cross = None
        if memory is not None:
            source = torch.arange(memory.shape[1], device=tokens.device)
            cross = _write_out(source_mask, rows, query, source, self.config)
        x = self.decoder(
            x,
            memory,
            mask=own,
            memory_mask=cross,
            rotation=rotation,
            is_causal=is_causal,
            cache=cache,
        )
        if cache is not None:
            cache.advance(count)
        return x

    def _embed(
        self, tokens: Tensor, position: Tensor | None, read: int
    ) -> tuple[Tensor, Rotation | None]:
        """Return token vectors with positions, and the turn of queries and keys."""
        integers = tokens.dtype in (torch.int64, torch.int32)
        if tokens.dim() != 2 or tokens.numel() == 0 or not integers:
            raise ValueError(
                "tokens must be int64 or int32 [batch, seq] with at least one token, "
                f"not {tokens.dtype} of shape {tuple(tokens.shape)}"
            )
        last = read + tokens.shape[1]
        if last > self.config.max_seq_len:
            raise ValueError(
                f"{last} tokens are more than max_seq_len={self.config.max_seq_len}"
            )
        if position is None:
            position = torch.arange(read, last, device=tokens.device)
            position = position.expand(tokens.shape[0], -1)
        elif position.shape != tokens.shape:
            raise ValueError(
                f"positions {tuple(position.shape)} do not match tokens "
                f"{tuple(tokens.shape)}"
            )
        _check_range("token id", tokens, self.config.vocab_size)
        _check_range("position", position, self.config.max_seq_len)
        x = self.embedding(tokens)
        if self.config.scale_embedding:
            x = x * self.config.d_model**0.5
        added = self.positions.embed(position)
        if added is not None:
            x = x + added
        return self.dropout(x), self.positions.rotation(position)

    def _check_family(
        self,
        source: Tensor | None,
        memory: Tensor | None,
        source_mask: MaskRule | None,
        cache: KVCache | None,
    ) -> None:
        given = (source is not None) + (memory is not None)
        both_stacks = self.encoder is not None and self.decoder is not None
        if both_stacks and given != 1:
            raise ValueError(
                "an encoder-decoder takes either source or memory, "
                f"but {given} of the two were given"
            )
        if not both_stacks and (given or source_mask is not None):
            raise ValueError(
                f"num_encoder_layers={self.config.num_encoder_layers} and "
                f"num_decoder_layers={self.config.num_decoder_layers}: "
                "only an encoder-decoder takes a source or a source_mask"
            )
        if self.decoder is None and cache is not None:
            raise ValueError("an encoder sees all tokens at once: it takes no cache")


def _write_out(
    rule: MaskRule | None,
    batch: int,
    query: Tensor,
    key: Tensor,
    config: TransformerConfig,
) -> Tensor | None:
    if rule is None:
        return None
    return dense(rule, batch=batch, query=query, key=key, heads=config.num_heads)


def _check_range(name: str, index: Tensor, limit: int) -> None:
    # CUDA reports a wrong index itself, and to ask it would stall its queue.
    if torch.compiler.is_compiling() or index.device.type in ("cuda", "meta"):
        return
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= limit:
        wrong = low if low < 0 else high
        raise ValueError(f"{name} {wrong} is outside 0 ... {limit - 1}")
