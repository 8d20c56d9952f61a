"""The zoo: faults that keep every shape, each planted in the package for one block.

    with ZOO["no_scale"].patch():
        ...  # models made and called here have the fault

A fault says how it would show without probes, its symptom, and which checks of the
battery it trips: these and no others. Some strike when a model is made, so make it
within the block. Each is written as the wrong function that takes a right one's place,
and gets that one, `right`, as its first argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tfcourse.course import broken
from tfcourse.course.battery import battery
from tfcourse.data import pairs
from tfcourse.data.pairs import IGNORE, Batch
from tfcourse.model import attention, layers, masks, positions, transformer
from tfcourse.model.attention import Attention
from tfcourse.model.cache import KVCache, LayerCache, StaticKVCache
from tfcourse.model.config import TransformerConfig
from tfcourse.model.layers import FeedForward, Residual
from tfcourse.model.transformer import Stack, Transformer
from tfcourse.training import step
from tfcourse.training.mode import mode

Planted = Callable[[], AbstractContextManager[None]]
Right = Callable[..., Any]

VASWANI, GPT, BERT = (f"{name} equals torch.nn" for name in ("2017", "GPT", "BERT"))
LLAMA, T5 = (f"{name} equals its formulas" for name in ("Llama", "T5"))


@dataclass(frozen=True)
class Fault:
    """A fault that `patch()` plants for a block, and how it shows.

    `symptom` is what one would observe without probes; `probes` names the checks of the
    battery that it trips, in its order.
    """

    name: str
    symptom: str
    probes: tuple[str, ...]
    patch: Planted


ZOO: dict[str, Fault] = {}


def diagnose(fault: Fault | None) -> dict[str, str]:
    """Run the battery under the fault; return {check: message} of those that trip.

    None stands for the package as it is.
    """
    messages = {}
    with nullcontext() if fault is None else fault.patch():
        for name, check in battery().items():
            try:
                check()
            except AssertionError as error:
                messages[name] = str(error)
    return messages


def _fault(symptom: str, *checks: str) -> Callable[[Planted], Planted]:
    """Put what is decorated into the zoo, under its own name."""

    def keep(planted: Planted) -> Planted:
        name = planted.__name__
        ZOO[name] = Fault(name, symptom, checks, planted)
        return planted

    return keep


def _in_place_of(name: str, *owners: Any) -> Callable[[Right], Planted]:
    """Let the decorated function take the place of `name` in its owners."""

    def make(wrong: Right) -> Planted:
        @wraps(wrong)
        @contextmanager
        def planted() -> Iterator[None]:
            right = getattr(owners[0], name)

            def stand_in(*args: Any, **options: Any) -> Any:
                return wrong(right, *args, **options)

            with ExitStack() as stack:
                for owner in owners:
                    stack.enter_context(patch.object(owner, name, stand_in))
                yield

        return planted

    return make


def _in_place_of_weights(wrong: Right) -> Planted:
    """Let the decorated function make the weights in both of attention's paths."""

    @wraps(wrong)
    @contextmanager
    def planted() -> Iterator[None]:
        right = attention.attention_weights

        def weights(*args: Any, **options: Any) -> Tensor:
            return wrong(right, *args, **options)

        def mix(
            query: Tensor,
            key: Tensor,
            value: Tensor,
            *,
            is_causal: bool,
            dropout: float,
            **options: Any,
        ) -> Tensor:
            if is_causal:
                shape = query.shape[2], key.shape[2]
                options["mask"] = query.new_ones(shape, dtype=torch.bool).tril()
            return F.dropout(weights(query, key, **options), dropout) @ value

        with (
            patch.object(attention, "attention_weights", weights),
            patch.object(attention, "fused_attention", mix),
        ):
            yield

    return planted


# ------------------------------------------------------------------------- masks


@_fault(
    "All is well until a mask is needed: then the model reads the padding and skips "
    "the text.",
    "padding",
    "padding of the source",
    "prompts padded on the left",
    "packed documents",
    "cache",
    "static cache",
    "recorded weights",
    T5,
)
@_in_place_of("dense", transformer)
def mask_inverted(right: Right, *args: Any, **options: Any) -> Tensor:
    """Let True mean *drop*, as in the masks of `nn.MultiheadAttention`."""
    return ~right(*args, **options)


@_fault(
    "The loss falls below what can be foretold, on random tokens too: the softmax's "
    "sum tells of what comes.",
    "causal",
    "causal in training",
    "padding",
    "padding of the source",
    "prompts padded on the left",
    "packed documents",
    "cache",
    "static cache",
    "beams with a cache",
    "recorded weights",
    VASWANI,
    GPT,
    LLAMA,
    T5,
)
@_in_place_of_weights
def mask_after_softmax(
    right: Right, *args: Any, mask: Tensor | None, **options: Any
) -> Tensor:
    """Set masked weights to zero once they have had their share of the sum."""
    weights = right(*args, **options)
    return weights if mask is None else weights * mask


@_fault(
    "The same texts have another loss in evaluation than in training, without dropout "
    "too; text comes out otherwise with a cache than without.",
    "causal",
    "cache",
    "static cache",
    "beams with a cache",
    VASWANI,
    GPT,
    LLAMA,
)
@_in_place_of("forward", Attention)
def causal_only_in_training(
    right: Right, self: Attention, *args: Any, is_causal: bool = False, **options: Any
) -> Tensor:
    """Leave the causal mask out in eval mode."""
    return right(self, *args, is_causal=is_causal and self.training, **options)


@_fault(
    "A sentence is translated otherwise beside a longer one than alone.",
    "padding of the source",
)
@_in_place_of("forward", Attention)
def cross_mask_dropped(
    right: Right, self: Attention, x: Tensor, memory: Any = None, **options: Any
) -> Tensor:
    """Let the decoder attend to the source's padding, which the encoder does not."""
    if memory is not None:
        options["mask"] = None
    return right(self, x, memory, **options)


@_fault(
    "A document's loss depends on what it was packed with.",
    "packed documents",
)
@_in_place_of("same_document", masks)
def documents_not_separated(right: Right, document: Tensor) -> None:
    """Pack documents under the causal mask alone: no rule keeps them apart."""
    return


# --------------------------------------------------------------------- attention


@_fault(
    "The loss falls below what can be foretold, on random tokens too: each weight "
    "depends on the queries that come. Pictures of the weights look right.",
    "causal",
    "causal in training",
    "padding",
    "padding of the source",
    "cache",
    "static cache",
    "beams with a cache",
    "recording changes nothing",
    VASWANI,
    GPT,
    BERT,
    LLAMA,
    T5,
)
@contextmanager
def softmax_over_queries() -> Iterator[None]:
    """Normalise each key's scores over the queries, in the fast path alone."""
    with broken.softmax_over_queries():
        yield


@_fault(
    "The loss falls below what can be foretold, on random tokens too: a head's "
    "vectors hold pieces of later tokens.",
    "causal",
    "causal in training",
    "padding",
    "padding of the source",
    "prompts padded on the left",
    "packed documents",
    "order unseen without positions",
    "cache",
    "static cache",
    "beams with a cache",
    VASWANI,
    GPT,
    BERT,
    LLAMA,
    T5,
)
@contextmanager
def heads_cut_across_positions() -> Iterator[None]:
    """Split heads by `view`, without the transposition."""
    with broken.heads_cut_across_positions():
        yield


@_fault(
    "With narrow heads training is as good as ever; the wider they are, the nearer to "
    "one-hot is the softmax at the start, where it passes little gradient. Loaded "
    "weights make no sense.",
    VASWANI,
    GPT,
    BERT,
    LLAMA,
)
@_in_place_of_weights
def no_scale(right: Right, *args: Any, scale: float, **options: Any) -> Tensor:
    """Leave out the division by the root of the head's width."""
    return right(*args, scale=1.0, **options)


@_fault(
    "A T5 trained from scratch is as good as ever; loaded weights make no sense.",
    T5,
)
@_in_place_of_weights
def t5_scores_scaled(
    right: Right, query: Tensor, *args: Any, scale: float, **options: Any
) -> Tensor:
    """Divide by the root of the head's width, though the config says not to."""
    return right(query, *args, scale=query.shape[-1] ** -0.5, **options)


@_fault(
    "A model trained from scratch is as good as ever; loaded weights make no sense.",
    LLAMA,
)
@_in_place_of("forward", Attention)
def kv_heads_tiled(right: Right, *args: Any, **options: Any) -> Tensor:
    """Serve query heads by key heads 0 1 0 1 in place of 0 0 1 1."""

    def tile(x: Tensor, copies: int, dim: int) -> Tensor:
        return torch.cat([x] * copies, dim)

    with patch.object(Tensor, "repeat_interleave", tile):
        return right(*args, **options)


@_fault(
    "Loss and text are as ever; pictures of the weights show another model.",
    "recording changes nothing",
)
@_in_place_of("attention_weights", attention)
def recording_forgets_bias(
    right: Right, *args: Any, bias: Any = None, **options: Any
) -> Tensor:
    """Leave the bias out of the equation, which runs where weights are recorded."""
    return right(*args, **options)


@_fault(
    "The same prompt is continued otherwise each time, even greedily.",
    "deterministic",
)
@_in_place_of("forward", Attention)
def dropout_left_on(
    right: Right, self: Attention, *args: Any, **options: Any
) -> Tensor:
    """Drop attention weights in eval mode too, as `F.dropout(x, p)` does."""
    with mode(self, training=True):
        return right(self, *args, **options)


# --------------------------------------------------------------------- positions


@_fault(
    "Words in another order give nearly the same output; a text's output depends on "
    "its row in the batch.",
    "padding",
    "padding of the source",
    "prompts padded on the left",
    "packed documents",
    "rows apart",
    "order seen",
    "beams with a cache",
    VASWANI,
    GPT,
    BERT,
    LLAMA,
    T5,
)
@_in_place_of("forward", Stack)
def positions_along_batch(
    right: Right, self: Stack, x: Tensor, *args: Any, position: Any = None, **o: Any
) -> Tensor:
    """Number the rows of the batch, as code made for [seq, batch] does."""
    row = torch.arange(len(x), device=x.device)[:, None]
    return right(self, x, *args, position=row.expand(x.shape[:2]), **o)


@_fault(
    "A prompt is continued otherwise beside a longer one than alone.",
    "prompts padded on the left",
    "packed documents",
)
@_in_place_of("forward", Stack)
def given_positions_ignored(
    right: Right, self: Stack, *args: Any, position: Any = None, **options: Any
) -> Tensor:
    """Count slots from 0, padding and earlier documents too."""
    return right(self, *args, **options)


@_fault(
    "The loss is as ever; text generated with a cache goes astray, or repeats itself, "
    "from the second token on.",
    "cache",
    "static cache",
    "beams with a cache",
)
@_in_place_of("forward", Stack)
def positions_start_again(
    right: Right, self: Stack, x: Tensor, *args: Any, position: Any = None, **o: Any
) -> Tensor:
    """Give the tokens of every decoding step the positions 0, 1 ..."""
    if position is None:
        position = torch.arange(x.shape[1], device=x.device)[None]
    return right(self, x, *args, position=position, **o)


@_fault(
    "A model trained from scratch is as good as ever; loaded weights make no sense.",
    LLAMA,
)
@_in_place_of("rotate", attention)
def rotary_interleaved(right: Right, x: Tensor, rotation: Any) -> Tensor:
    """Turn neighbouring features, where the weights were made for halves."""
    halves = torch.cat((x[..., ::2], x[..., 1::2]), dim=-1)
    turned = right(halves, rotation).chunk(2, dim=-1)
    return torch.stack(turned, dim=-1).flatten(-2)


@_fault(
    "The decoder does not tell near from far; loaded weights make no sense.",
    T5,
)
@_in_place_of("offset_bucket", positions)
def bucket_sign(right: Right, offset: Tensor, *args: Any, **options: Any) -> Tensor:
    """Take the offset of the query from the key for that of the key from the query."""
    return right(-offset, *args, **options)


@_fault(
    "Single sentences are understood as ever, pairs of them worse.",
    BERT,
)
@_in_place_of("_embed", Transformer)
def segments_ignored(
    right: Right, self: Transformer, tokens: Tensor, position: Any, segment: Any
) -> Tensor:
    """Let every token be of segment 0."""
    return right(self, tokens, position, None)


# ------------------------------------------------------------------------ layers


@_fault(
    "A model of one layer learns as well, one of six hardly at all; loaded weights "
    "make no sense.",
    VASWANI,
    GPT,
    BERT,
    LLAMA,
    T5,
)
@_in_place_of("forward", Residual)
def residual_left_out(right: Right, self: Residual, x: Tensor, layer: Any) -> Tensor:
    """Return what the layer adds, without what it is added to."""
    if self.pre:
        return self.dropout(layer(self.norm(x)))
    return self.norm(self.dropout(layer(x)))


@_fault(
    "A model of one layer learns, a deep one badly or not at all unless its "
    "learning rate warms up; loaded weights make no sense.",
    GPT,
    LLAMA,
    T5,
)
@_in_place_of("forward", Residual)
def norm_after_addition(right: Right, self: Residual, x: Tensor, layer: Any) -> Tensor:
    """Normalise the sum, as post-norm does, in a model that is to be pre-norm."""
    return self.norm(x + self.dropout(layer(x)))


@_fault(
    "The loss is higher at the start, and the vectors that reach the head grow with "
    "the depth of the model; loaded weights make no sense.",
    GPT,
    LLAMA,
    T5,
)
@_in_place_of("forward", Stack)
def final_norm_forgotten(
    right: Right, self: Stack, *args: Any, **options: Any
) -> Tensor:
    """Let a pre-norm model's residual stream reach the head as it is."""
    with patch.object(self.last_norm, "forward", lambda x: x):
        return right(self, *args, **options)


@_fault(
    "A model trained from scratch is as good as ever; loaded weights give logits that "
    "are slightly off, the more the narrower the model.",
    VASWANI,
    GPT,
    BERT,
)
@_in_place_of("make_norm", layers, transformer)
def deviation_for_variance(right: Right, config: TransformerConfig) -> nn.Module:
    """Divide by std + eps, a std with d - 1 in its denominator, in LayerNorm."""

    def standardise(x: Tensor) -> Tensor:
        deviation = x.std(-1, keepdim=True) + config.norm_eps
        return (x - x.mean(-1, keepdim=True)) / deviation

    return _standardised_by(standardise, right(config))


@_fault(
    "The loss falls below what can be foretold, on random tokens too: mean and "
    "variance tell of what comes.",
    "causal",
    "causal in training",
    "padding",
    "padding of the source",
    "prompts padded on the left",
    "packed documents",
    "cache",
    "beams with a cache",
    VASWANI,
    GPT,
    BERT,
)
@_in_place_of("make_norm", layers, transformer)
def norm_over_sequence(right: Right, config: TransformerConfig) -> nn.Module:
    """Take LayerNorm's mean and variance over the positions too."""

    def standardise(x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:], eps=config.norm_eps)

    return _standardised_by(standardise, right(config))


def _standardised_by(standardise: Callable[[Tensor], Tensor], norm: Any) -> nn.Module:
    """Let a LayerNorm scale and shift what `standardise` returns; leave an RMSNorm."""

    def forward(x: Tensor) -> Tensor:
        x = standardise(x) * norm.weight
        return x if norm.bias is None else x + norm.bias

    if not isinstance(norm, nn.RMSNorm):
        norm.forward = forward
    return norm


@_fault(
    "A model trained from scratch is as good as ever; loaded weights give logits that "
    "are off by a thousandth or so, and no text looks wrong.",
    GPT,
    T5,
)
@contextmanager
def exact_gelu() -> Iterator[None]:
    """Use GELU itself where its tanh approximation is asked for."""
    with patch.dict(layers.ACTIVATIONS, gelu_tanh=nn.GELU):
        yield


@_fault(
    "A model trained from scratch is as good as ever; loaded weights make no sense.",
    LLAMA,
    T5,
)
@_in_place_of("forward", FeedForward)
def gate_swapped(right: Right, self: FeedForward, x: Tensor) -> Tensor:
    """Activate what the gate multiplies, and not the gate."""
    if self.gate is None:
        return right(self, x)
    return self.narrow(self.dropout(self.activation(self.widen(x)) * self.gate(x)))


@_fault(
    "A model trained from scratch is as good as ever; loaded weights make no sense.",
    VASWANI,
)
@_in_place_of("_embed", Transformer)
def embedding_not_scaled(right: Right, self: Transformer, *args: Any) -> Tensor:
    """Leave out the factor √d_model on the embeddings."""
    x = right(self, *args)
    return x / self.config.d_model**0.5 if self.config.scale_embedding else x


@_fault(
    "At first all is the same; in training embedding and head drift apart, and the "
    "checkpoint holds a matrix more.",
    "tied head",
    VASWANI,
    GPT,
    BERT,
    T5,
)
@_in_place_of("__init__", Transformer)
def head_is_a_copy(right: Right, self: Transformer, config: TransformerConfig) -> None:
    """Copy the embedding into the head once, where the two are to be one matrix."""
    right(self, config)
    if config.tie_embeddings:
        self.unembedding = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.unembedding.load_state_dict(self.embedding.state_dict())


# ------------------------------------------------------------------------- cache


@_fault(
    "One prompt is read well; a second turn of the dialogue, read in one piece, goes "
    "astray.",
    "prompts padded on the left",
    "cache",
    "static cache",
)
@_in_place_of("dense", transformer)
def mask_offset_lost(
    right: Right, rule: Any, *, query: Tensor, **options: Any
) -> Tensor:
    """Count the queries of a chunk from 0, whatever has been read before."""
    return right(rule, query=query - query[0], **options)


@_fault(
    "Text generated with the static cache is worse than with the growing one, most of "
    "all at the start.",
    "static cache",
)
@contextmanager
def static_cache_shows_empty_slots() -> Iterator[None]:
    """Let single tokens attend to slots that nothing was written to."""
    with patch.object(StaticKVCache, "has_unread_slots", False):
        yield


@_fault(
    "The first token after the prompt is right, what follows makes no sense.",
    "cache",
    "beams with a cache",
)
@_in_place_of("append", LayerCache)
def cache_swaps_keys_and_values(
    right: Right, self: LayerCache, key: Tensor, value: Tensor
) -> Any:
    """Join new keys to old values, and new values to old keys."""
    self.own = self.own and (self.own[1], self.own[0])
    return right(self, key, value)


@_fault(
    "Beam search finds worse outputs with a cache than without one.",
    "beams with a cache",
)
@_in_place_of("reorder", KVCache)
def beams_not_reordered(right: Right, self: KVCache, rows: Tensor) -> None:
    """Let each beam go on with what the beam before it in its row has read."""
    return


# -------------------------------------------------------------- targets and loss


@_fault(
    "The loss falls to nearly nothing within a few steps; generated text repeats its "
    "last token.",
    "targets shifted",
)
@_in_place_of("prefix_batch", pairs)
def targets_not_shifted(right: Right, *args: Any) -> Batch:
    """Ask at each place for the token that stands there."""
    batch = right(*args)
    asked = batch.target != IGNORE
    return replace(batch, target=batch.tokens.where(asked, batch.target))


@_fault(
    "The loss stays above that of a right model; generated text leaves out every other "
    "token.",
    "targets shifted",
)
@_in_place_of("prefix_batch", pairs)
def targets_shifted_twice(right: Right, *args: Any) -> Batch:
    """Shift targets in the data and once more in the loss."""
    batch = right(*args)
    return replace(batch, target=F.pad(batch.target[:, 1:], (0, 1), value=IGNORE))


@_fault(
    "The more padding a batch has, the better its loss looks, and the smaller its "
    "gradient is.",
    "padding in the loss",
)
@_in_place_of("token_loss", step)
def padding_in_the_loss(
    right: Right, logits: Tensor, target: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    """Divide by all places of the batch, those of the padding too."""
    total, _ = right(logits, target, **options)
    return total, torch.tensor(target.numel(), device=target.device)


@_fault(
    "Accumulated steps go otherwise than the large batch: words of short texts weigh "
    "more than those of long ones.",
    "accumulation",
)
@_in_place_of("token_loss", step)
def mean_of_means(right: Right, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """Return the mean of each small batch as if it were a sum over one target."""
    total, count = right(*args, **options)
    return total / count, torch.ones_like(count)
