"""How good a translator is: whole outputs, compared with what they should be."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tfcourse.data.pairs import pad
from tfcourse.data.tokenizers import AnyTokenizer
from tfcourse.generation import beam_search, generate
from tfcourse.model.masks import padding
from tfcourse.model.transformer import Transformer
from tfcourse.training.mode import mode


def translate(
    model: Transformer,
    texts: Sequence[str],
    tokenizer: AnyTokenizer,
    *,
    num_beams: int = 1,
    max_new_tokens: int | None = None,
    batch_size: int = 256,
) -> list[str]:
    """Return the model's output for each text: greedy, or by beam search over one beam.

    A decoder alone is given the text as a prefix, as `prefix_batch` trains it, and
    decodes greedily. Outputs end at `max_new_tokens`, by default where the model's
    max_seq_len does. Beams for a decoder alone raise `ValueError`.
    """
    if num_beams != 1 and model.encoder is None:
        raise ValueError(
            f"num_beams={num_beams}: prefixes of unequal length are decoded greedily; "
            "call beam_search for each"
        )
    outputs: list[str] = []
    with mode(model, training=False):
        for first in range(0, len(texts), batch_size):
            ids = [tokenizer.encode(t) for t in texts[first : first + batch_size]]
            if model.encoder is None:
                new = _continue(model, ids, tokenizer, max_new_tokens)
            else:
                new = _transduce(model, ids, tokenizer, num_beams, max_new_tokens)
            outputs += [tokenizer.decode(row) for row in new.tolist()]
    return outputs


def exact_match(
    model: Transformer,
    pairs: Sequence[tuple[str, str]],
    tokenizer: AnyTokenizer,
    *,
    num_beams: int = 1,
    max_new_tokens: int | None = None,
) -> float:
    """Return the share of pairs whose whole translation is the expected one, 0 to 1."""
    if not pairs:
        raise ValueError("there are no pairs to translate")
    outputs = translate(
        model,
        [source for source, _ in pairs],
        tokenizer,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
    )
    right = (out == text for out, (_, text) in zip(outputs, pairs, strict=True))
    return sum(right) / len(pairs)


def _device(model: Transformer) -> torch.device:
    return next(model.parameters()).device


def _transduce(
    model: Transformer,
    ids: list[list[int]],
    tokenizer: AnyTokenizer,
    num_beams: int,
    max_new_tokens: int | None,
) -> Tensor:
    """Return what an encoder-decoder writes for each source, [batch, new]."""
    source = pad(ids, tokenizer.pad).to(_device(model))
    prompt = torch.full_like(source[:, :1], tokenizer.start)
    source_mask = padding(source != tokenizer.pad)
    room = model.config.max_seq_len - 1
    new = room if max_new_tokens is None else max_new_tokens
    if num_beams == 1:
        tokens = generate(
            model,
            prompt,
            max_new_tokens=new,
            source=source,
            source_mask=source_mask,
            stop_token=tokenizer.stop,
        )
    else:
        tokens, _ = beam_search(
            model,
            prompt,
            max_new_tokens=new,
            num_beams=num_beams,
            source=source,
            source_mask=source_mask,
            stop_token=tokenizer.stop,
        )
    return tokens[:, 1:]


def _continue(
    model: Transformer,
    ids: list[list[int]],
    tokenizer: AnyTokenizer,
    max_new_tokens: int | None,
) -> Tensor:
    """Return what a decoder alone writes after each prefix, [batch, new]."""
    prefixes = [[*row, tokenizer.start] for row in ids]
    prompt = pad(prefixes, tokenizer.pad, left=True).to(_device(model))
    room = model.config.max_seq_len - prompt.shape[1]
    tokens = generate(
        model,
        prompt,
        max_new_tokens=room if max_new_tokens is None else max_new_tokens,
        prompt_mask=prompt != tokenizer.pad,
        stop_token=tokenizer.stop,
    )
    return tokens[:, prompt.shape[1] :]
