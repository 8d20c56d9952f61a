"""Small Hugging Face models with random sizes and weights, and batches with padding."""

import random
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tfcourse.model.masks import padding
from tfcourse.model.transformer import Transformer

VOCAB = 37


def sizes(seed: int) -> tuple[int, int, int, int]:
    """Draw heads, features per head, layers of a stack and of another."""
    draw = random.Random(seed)
    return draw.choice([1, 2, 4]), draw.choice([4, 6, 8]), *draw.choices([1, 2, 3], k=2)


def gpt2(seed: int = 0, kind: str = "GPT2LMHeadModel", **options: Any) -> Any:
    heads, width, layers, _ = sizes(seed)
    config = transformers.GPT2Config(
        **{
            "n_embd": heads * width,
            "n_head": heads,
            "n_layer": layers,
            "n_positions": 40,
            "vocab_size": VOCAB,
            "bos_token_id": 1,
            "eos_token_id": 1,
            **options,
        }
    )
    return made(kind, config)


def bert(seed: int = 0, kind: str = "BertForMaskedLM", **options: Any) -> Any:
    heads, width, layers, other = sizes(seed)
    config = transformers.BertConfig(
        **{
            "hidden_size": heads * width,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "intermediate_size": 10 * other,
            "max_position_embeddings": 40,
            "type_vocab_size": 3,
            "vocab_size": VOCAB,
            **options,
        }
    )
    return made(kind, config)


def t5(seed: int = 0, kind: str = "T5ForConditionalGeneration", **options: Any) -> Any:
    heads, width, layers, other = sizes(seed)
    config = transformers.T5Config(
        **{
            "d_model": 16,
            "d_kv": width,
            "d_ff": 24,
            "num_heads": heads,
            "num_layers": layers,
            "num_decoder_layers": other,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 12,
            "vocab_size": VOCAB,
            "decoder_start_token_id": 0,
            **options,
        }
    )
    return made(kind, config)


def llama(seed: int = 0, kind: str = "LlamaForCausalLM", **options: Any) -> Any:
    heads, width, layers, other = sizes(seed)
    config = transformers.LlamaConfig(
        **{
            "hidden_size": heads * width,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "intermediate_size": 10 * other,
            "max_position_embeddings": 40,
            "vocab_size": VOCAB,
            **options,
        }
    )
    return made(kind, config)


def marian(seed: int = 0, kind: str = "MarianMTModel", **options: Any) -> Any:
    heads, width, layers, other = sizes(seed)
    config = transformers.MarianConfig(
        **{
            "d_model": heads * width,
            "encoder_layers": layers,
            "decoder_layers": other,
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "max_position_embeddings": 40,
            "vocab_size": VOCAB,
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
            "eos_token_id": 1,
            "forced_eos_token_id": None,
            **options,
        }
    )
    return made(kind, config)


@torch.no_grad()
def made(kind: str, config: Any) -> Any:
    """Return a model whose every weight was moved: 0 and 1 would hide faults."""
    model = getattr(transformers, kind)(config).eval()
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        if weight.is_floating_point() and not FIXED.intersection(name.split(".")):
            weight.add_(torch.randn_like(weight), alpha=0.2)
    return model


FIXED = {"embed_positions", "inv_freq", "original_inv_freq"}


@torch.no_grad()
def speaker(make: Callable[..., Any], seed: int, **options: Any) -> Any:
    """Return a model that does not say one word for ever.

    It has a head of its own, for a tied one repeats what it reads; and words differ
    much, so that they count for more than the biases.
    """
    model = make(seed, **options)
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.get_input_embeddings().weight.normal_(std=2)
    return model


def left_padded(rows: int = 3, length: int = 20) -> tuple[Tensor, Tensor]:
    """Return tokens and which of them are real; rows differ in length."""
    tokens = torch.randint(2, VOCAB, (rows, length))
    valid = torch.arange(length) >= 3 * torch.arange(rows)[:, None]
    return tokens.masked_fill(~valid, 0), valid


def right_padded(rows: int = 3, length: int = 20) -> tuple[Tensor, Tensor]:
    tokens, valid = left_padded(rows, length)
    return tokens.flip(1), valid.flip(1)


def places(valid: Tensor) -> Tensor:
    """Return positions that count real tokens only."""
    return (valid.long().cumsum(1) - 1).clamp(min=0)


Pair = tuple[Tensor, Tensor]  # theirs and ours, at the real tokens of a batch


@torch.no_grad()
def both_outputs(theirs: Any, ours: Transformer) -> Pair:
    """Run one padded batch through both; return logits, or the vectors of a body."""
    if theirs.config.is_encoder_decoder:
        return seq2seq(theirs, ours)
    return encoder(theirs, ours) if ours.decoder is None else decoder(theirs, ours)


def decoder(theirs: nn.Module, ours: Transformer) -> Pair:
    tokens, valid = left_padded()
    place = places(valid)
    output = theirs(tokens, attention_mask=valid.long(), position_ids=place)
    wanted = what(output)
    got = ours(tokens, mask=padding(valid), position=place, output=wanted)
    return theirs_of(output)[valid], got[valid]


def encoder(theirs: nn.Module, ours: Transformer) -> Pair:
    tokens, valid = right_padded()
    segment, given = None, {}
    if theirs.config.model_type == "bert":
        segment = torch.randint(theirs.config.type_vocab_size, tokens.shape)
        given = {"token_type_ids": segment}
    output = theirs(tokens, attention_mask=valid.long(), **given)
    wanted = what(output)
    got = ours(tokens, mask=padding(valid), segment=segment, output=wanted)
    return theirs_of(output)[valid], got[valid]


def seq2seq(theirs: nn.Module, ours: Transformer) -> Pair:
    (source, seen), (tokens, valid) = right_padded(length=23), left_padded()
    output = theirs(
        source,
        attention_mask=seen.long(),
        decoder_input_ids=tokens,
        decoder_attention_mask=valid.long(),
    )
    got = ours(tokens, source, mask=padding(valid), source_mask=padding(seen))
    return output.logits[valid], got[valid]


def what(output: Any) -> str:
    return "hidden" if "last_hidden_state" in output else "logits"


def theirs_of(output: Any) -> Tensor:
    names = ("last_hidden_state", "prediction_logits", "logits")
    return next(output[name] for name in names if name in output)
