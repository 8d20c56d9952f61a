"""Speculative decoding: a small model guesses, the large one checks them at once.

What comes out has exactly the large model's distribution, whatever the small one
guesses; how fast it comes depends on how often the two agree.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tfcourse.generation import end_tokens
from tfcourse.model.cache import KVCache
from tfcourse.model.masks import MaskRule
from tfcourse.model.transformer import Transformer


@dataclass(frozen=True)
class Speculation:
    """The tokens [1, total], and how they came about.

    The large model ran `passes` times; `accepted` of `guessed` tokens were kept.
    """

    tokens: Int[Tensor, "1 total"]
    passes: int
    guessed: int
    accepted: int


@torch.no_grad()
def speculate(
    model: Transformer,
    draft: Transformer,
    prompt: Int[Tensor, "1 prompt"],
    *,
    max_new_tokens: int,
    num_guesses: int = 4,
    temperature: float = 1.0,
    stop_token: int | Collection[int] | None = None,
    source: Int[Tensor, "1 source"] | None = None,
    source_mask: MaskRule | None = None,
    generator: torch.Generator | None = None,
) -> Speculation:
    """Sample a continuation from `model`, guessed by `draft` where it can be.

    Each pass of `model` checks `num_guesses` tokens, keeps those before the first that
    it refuses, and adds one of its own. A temperature of 0 is greedy. Source: Leviathan
    et al. 2023, algorithm 1.
    """
    _check(model, draft, prompt, max_new_tokens, num_guesses, temperature)
    stops = prompt.new_tensor(end_tokens(model, stop_token)[0])
    large = _Reader(model, temperature, source, source_mask)
    small = _Reader(draft, temperature, source, source_mask)
    tokens, end = prompt, prompt.shape[1] + max_new_tokens
    passes = guessed = accepted = 0
    while tokens.shape[1] < end:
        start = tokens.shape[1]
        count = min(num_guesses, end - start - 1)
        guesses, offered = small.guess(tokens, count, generator)
        wanted = large.read(torch.cat((tokens, guesses), dim=1))[-count - 1 :]
        new = check(guesses[0], offered, wanted, generator)
        tokens = torch.cat((tokens, new[None]), dim=1)
        passes, guessed, accepted = passes + 1, guessed + count, accepted + len(new) - 1
        ends = torch.isin(new, stops).nonzero()
        if len(ends):
            tokens = tokens[:, : start + int(ends[0]) + 1]
            break
        large.forget_after(tokens.shape[1] - 1)
        small.forget_after(tokens.shape[1] - 1)
    return Speculation(tokens, passes, guessed, accepted)


def check(
    guesses: Int[Tensor, " count"],
    offered: Float[Tensor, "count vocab"],
    wanted: Float[Tensor, "more vocab"],
    generator: torch.Generator | None = None,
) -> Int[Tensor, " kept"]:
    """Return the guesses that are kept, and one token more.

    Guess i was drawn from offered[i]; wanted[i] is the distribution it should have. It
    is kept with probability min(1, wanted / offered). The first that is not is drawn
    anew from what `wanted` has more than `offered`; after the last, one is drawn from
    wanted[count]. Source: Leviathan et al. 2023, section 2.3 and appendix A.1.
    """
    index = torch.arange(len(guesses), device=guesses.device)
    ratio = wanted[index, guesses] / offered[index, guesses]
    luck = torch.rand(len(guesses), generator=generator, device=guesses.device)
    refused = (luck >= ratio).nonzero()
    kept = int(refused[0]) if len(refused) else len(guesses)
    left = wanted[kept]
    if kept < len(guesses):
        left = (left - offered[kept]).clamp(min=0)
    return torch.cat((guesses[:kept], torch.multinomial(left, 1, generator=generator)))


class _Reader:
    """A model that remembers what it has read, and can be made to forget."""

    def __init__(
        self,
        model: Transformer,
        temperature: float,
        source: Tensor | None,
        source_mask: MaskRule | None,
    ) -> None:
        self.model, self.temperature, self.cache = model, temperature, KVCache()
        self.memory = None if source is None else model.encode(source, source_mask)
        self.source_mask = source_mask

    def read(self, tokens: Tensor) -> Tensor:
        """Return the distributions after each token not read yet, [new, vocab]."""
        logits = self.model(
            tokens[:, self.cache.length :],
            memory=self.memory,
            source_mask=self.source_mask,
            cache=self.cache,
        )[0]
        if self.temperature == 0:
            return torch.zeros_like(logits).scatter(1, logits.argmax(1)[:, None], 1.0)
        return (logits.float() / self.temperature).softmax(-1)

    def guess(
        self, tokens: Tensor, count: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return `count` sampled tokens [1, count], and what each was drawn from."""
        start, offered = tokens.shape[1], []
        for _ in range(count):
            offered.append(self.read(tokens)[-1:])
            new = torch.multinomial(offered[-1], 1, generator=generator)
            tokens = torch.cat((tokens, new), dim=1)
        vocab = self.model.config.vocab_size
        none = torch.zeros(0, vocab, device=tokens.device)
        return tokens[:, start:], torch.cat((none, *offered))

    def forget_after(self, length: int) -> None:
        self.cache.crop(min(length, int(self.cache.length)))


def _check(
    model: Transformer,
    draft: Transformer,
    prompt: Tensor,
    new: int,
    guesses: int,
    temperature: float,
) -> None:
    if prompt.dim() != 2 or len(prompt) != 1 or not prompt.numel():
        raise ValueError(
            f"speculation takes one prompt, [1, seq], not shape {tuple(prompt.shape)}: "
            "rows would keep unequal numbers of guesses"
        )
    if draft.config.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"the draft's vocab_size={draft.config.vocab_size} is not the model's "
            f"{model.config.vocab_size}"
        )
    for name, value, least in (
        ("max_new_tokens", new, 0),
        ("num_guesses", guesses, 1),
        ("temperature", temperature, 0),
    ):
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    for each in (model, draft):
        limit = each.config.max_seq_len
        if prompt.shape[1] + new > limit:
            raise ValueError(
                f"a prompt of {prompt.shape[1]} tokens and max_new_tokens={new} are "
                f"more than max_seq_len={limit}"
            )
        if each.config.num_decoder_layers == 0:
            raise ValueError("generation needs a decoder, but num_decoder_layers=0")
