"""Text from a model, one token at a time: greedy, sampled, and by beam search."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tfcourse.model.cache import KVCache, StaticKVCache
from tfcourse.model.masks import MaskRule, dense, padding
from tfcourse.model.transformer import Transformer

# Pictures, for a model whose encoder reads them (`variants.pictures`).
Source = Int[Tensor, "batch source"] | Float[Tensor, "batch height width"]
Choose = Callable[[Float[Tensor, "batch vocab"]], Int[Tensor, " batch"]]


def greedy(logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
    """Take the likeliest token."""
    return logits.argmax(dim=-1)


def sample(
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Choose:
    """Draw from softmax(logits / temperature), from the likeliest tokens only if asked.

    `top_k` keeps the k likeliest (Fan et al. 2018); `top_p` the fewest whose
    probabilities reach p (Holtzman et al. 2020, nucleus sampling). With both, top_k
    comes first. Values out of range raise `ValueError`.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}; see greedy")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], not {top_p}")

    def choose(logits: Tensor) -> Tensor:
        logits = logits.float() / temperature
        if top_k is not None:
            logits = keep_top_k(logits, top_k)
        if top_p is not None:
            logits = keep_top_p(logits, top_p)
        return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]

    return choose


def keep_top_k(
    logits: Float[Tensor, "batch vocab"], k: int
) -> Float[Tensor, "batch vocab"]:
    """Set all but the k largest logits of each row to -inf."""
    value, index = logits.topk(min(k, logits.shape[-1]))
    return torch.full_like(logits, -torch.inf).scatter(-1, index, value)


def keep_top_p(
    logits: Float[Tensor, "batch vocab"], p: float
) -> Float[Tensor, "batch vocab"]:
    """Keep the fewest tokens whose probabilities sum to p or more; others to -inf."""
    if p == 1:  # the sum of all, rounded, may reach 1 before the last
        return logits
    value, index = logits.sort(descending=True, stable=True)
    probability = value.softmax(-1)
    before = probability.cumsum(-1) - probability
    # The likeliest token always stays: rounding could otherwise drop every one.
    drop = before >= p
    drop[..., 0] = False
    return value.masked_fill(drop, -torch.inf).gather(-1, index.argsort(-1))


def penalise_repetition(
    logits: Float[Tensor, "batch vocab"],
    tokens: Int[Tensor, "batch seq"],
    penalty: float,
    valid: Bool[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, "batch vocab"]:
    """Make tokens that a row holds already less likely, for a penalty above 1.

    Their logits are divided by it where positive, multiplied where negative; `valid`
    is False at tokens that do not count. Source: Keskar et al. 2019, section 4.1.
    """
    if not penalty > 0:
        raise ValueError(f"repetition_penalty must be above 0, not {penalty}")
    counts = torch.ones_like(tokens) if valid is None else valid.long()
    seen = torch.zeros_like(logits, dtype=torch.long).scatter_add(1, tokens, counts)
    less_likely = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen > 0, less_likely, logits)


@dataclass
class _Reader:
    """Feeds tokens to a model and returns the logits that follow the last one.

    `valid` is True at real tokens; positions count these only, so that a prompt padded
    on the left reads like the prompt alone.
    """

    model: Transformer
    memory: Tensor | None
    source_mask: MaskRule | None
    valid: Tensor | None
    cache: KVCache | None
    read: int = 0

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Return the logits after `tokens`, [batch, vocab]; all of them are passed."""
        mask, position = None, None
        if self.valid is not None:
            grown = tokens.shape[1] - self.valid.shape[1]
            self.valid = F.pad(self.valid, (0, grown), value=True)
            mask = padding(self._per_slot(self.valid))
            position = (self.valid.long().cumsum(1) - 1).clamp(min=0)[:, self.read :]
        logits = self.model(
            tokens[:, self.read :],
            mask=mask,
            source_mask=self.source_mask,
            memory=self.memory,
            position=position,
            cache=self.cache,
            output="last",
        )
        self.read = 0 if self.cache is None else tokens.shape[1]
        return logits[:, 0]

    def _per_slot(self, valid: Tensor) -> Tensor:
        """Return `valid` for all slots of the cache, the empty ones too."""
        if not isinstance(self.cache, StaticKVCache):
            return valid
        return F.pad(valid, (0, self.cache.capacity - valid.shape[1]), value=False)

    def spread(self, batch: int, copies: int) -> None:
        """Repeat each row `copies` times, so that a prompt's beams stand together."""
        if self.valid is not None:
            self.valid = self.valid.repeat_interleave(copies, dim=0)
        if self.memory is None:
            return
        device, length = self.memory.device, self.memory.shape[1]
        if self.source_mask is not None:
            slot = torch.arange(length, device=device)
            valid = dense(self.source_mask, batch=batch, query=slot[:1], key=slot)
            valid = valid[:, 0, 0].expand(batch, length)
            self.source_mask = padding(valid.repeat_interleave(copies, dim=0))
        self.memory = self.memory.repeat_interleave(copies, dim=0)


@torch.no_grad()
def _reader(
    model: Transformer,
    prompt: Tensor,
    max_new_tokens: int,
    source: Tensor | None,
    source_mask: MaskRule | None,
    prompt_mask: Tensor | None,
    cache: KVCache | None,
) -> _Reader:
    config = model.config
    if config.num_decoder_layers == 0:
        raise ValueError("generation needs a decoder, but num_decoder_layers=0")
    if prompt.dim() != 2:
        raise ValueError(f"a prompt is [batch, seq], not {tuple(prompt.shape)}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be at least 0, not {max_new_tokens}")
    if prompt.shape[1] + max_new_tokens > config.max_seq_len:
        raise ValueError(
            f"a prompt of {prompt.shape[1]} tokens and max_new_tokens={max_new_tokens} "
            f"are more than max_seq_len={config.max_seq_len}"
        )
    if prompt_mask is not None and prompt_mask.shape != prompt.shape:
        raise ValueError(
            f"prompt_mask {tuple(prompt_mask.shape)} does not match the prompt "
            f"{tuple(prompt.shape)}"
        )
    if prompt_mask is not None and not bool(prompt_mask[:, -1].all()):
        raise ValueError("pad prompts on the left: their last token must be a real one")
    if cache is not None and int(cache.length):
        raise ValueError(
            f"the cache has read {int(cache.length)} tokens: pass a new one"
        )
    memory = None if source is None else model.encode(source, source_mask)
    return _Reader(model, memory, source_mask, prompt_mask, cache)


def end_tokens(
    model: Transformer, stop: int | Collection[int] | None, pad: int | None = None
) -> tuple[list[int], int]:
    """Return the stop tokens as a list, and the token that follows them."""
    stops = [stop] if isinstance(stop, int) else list(stop or [])
    size = model.config.vocab_size
    for name, tokens in (
        ("stop_token", stops),
        ("pad_token", [] if pad is None else [pad]),
    ):
        for token in tokens:
            if not 0 <= token < size:
                raise ValueError(f"{name} {token} is outside 0 ... {size - 1}")
    return stops, pad if pad is not None else stops[0] if stops else 0


def stream(
    model: Transformer,
    prompt: Int[Tensor, "batch prompt"],
    *,
    max_new_tokens: int,
    source: Source | None = None,
    source_mask: MaskRule | None = None,
    prompt_mask: Bool[Tensor, "batch prompt"] | None = None,
    choose: Choose = greedy,
    repetition_penalty: float = 1.0,
    stop_token: int | Collection[int] | None = None,
    pad_token: int | None = None,
    cache: KVCache | None = None,
    use_cache: bool = True,
) -> Iterator[Int[Tensor, " batch"]]:
    """Yield the next token of each prompt as soon as it is chosen.

    A row that has produced a `stop_token` (one, or any of several) goes on with
    `pad_token`, by default the first stop token; the end is reached when all rows have.
    `prompt_mask` is False where a prompt is padded, on the left. `cache` is an empty
    one to fill, such as a StaticKVCache. The model should be in eval mode.
    """
    if cache is not None and not use_cache:
        raise ValueError("a cache was given, but use_cache is False")
    if use_cache and cache is None:
        cache = KVCache()
    reader = _reader(
        model, prompt, max_new_tokens, source, source_mask, prompt_mask, cache
    )
    stops, pad = end_tokens(model, stop_token, pad_token)
    steps = range(max_new_tokens)
    return _stream(reader, prompt, steps, choose, repetition_penalty, stops, pad)


@torch.no_grad()
def _stream(
    reader: _Reader,
    tokens: Tensor,
    steps: range,
    choose: Choose,
    penalty: float,
    stops: list[int],
    pad: int,
) -> Iterator[Tensor]:
    done = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    for _ in steps:
        logits = reader.next_logits(tokens)
        if penalty != 1:
            logits = penalise_repetition(logits, tokens, penalty, reader.valid)
        chosen = choose(logits).masked_fill(done, pad)
        tokens = torch.cat((tokens, chosen[:, None]), dim=1)
        yield chosen
        if stops:
            done = done | torch.isin(chosen, tokens.new_tensor(stops))
            if bool(done.all()):
                return


def generate(
    model: Transformer,
    prompt: Int[Tensor, "batch prompt"],
    *,
    max_new_tokens: int,
    **options: Any,
) -> Int[Tensor, "batch total"]:
    """Return each prompt with up to `max_new_tokens` more, chosen one by one.

    The options are those of `stream`.
    """
    chosen = stream(model, prompt, max_new_tokens=max_new_tokens, **options)
    return torch.cat((prompt, *(token[:, None] for token in chosen)), dim=1)


@torch.no_grad()
def beam_search(
    model: Transformer,
    prompt: Int[Tensor, "batch prompt"],
    *,
    max_new_tokens: int,
    num_beams: int,
    stop_token: int | Collection[int],
    pad_token: int | None = None,
    source: Source | None = None,
    source_mask: MaskRule | None = None,
    prompt_mask: Bool[Tensor, "batch prompt"] | None = None,
    length_penalty: float = 1.0,
    use_cache: bool = True,
) -> tuple[Int[Tensor, "batch total"], Float[Tensor, " batch"]]:
    """Return the best continuation found for each prompt, and its score.

    The score is the sum of log-probabilities divided by (new tokens)^length_penalty:
    0 compares sums, larger values favour longer outputs. A continuation is finished
    when it ends in a stop token, or has `max_new_tokens`; the search is over when no
    unfinished one can become better than the best finished one. `source_mask` must
    depend on the key alone, as `padding` does.
    """
    _check_beams(num_beams, length_penalty, max_new_tokens)
    cache = KVCache() if use_cache else None
    reader = _reader(
        model, prompt, max_new_tokens, source, source_mask, prompt_mask, cache
    )
    stops, pad = end_tokens(model, stop_token, pad_token)
    reader.spread(prompt.shape[0], num_beams)
    beams = _Beams(prompt, num_beams, max_new_tokens, length_penalty, stops)
    for _ in range(max_new_tokens):
        rows = beams.grow(reader.next_logits(beams.tokens))
        if cache is not None:
            cache.reorder(rows)
        if beams.settled():
            break
    return beams.best(pad)


def _check_beams(beams: int, penalty: float, new: int) -> None:
    if beams < 1:
        raise ValueError(f"num_beams must be at least 1, not {beams}")
    if not penalty >= 0:
        raise ValueError(f"length_penalty must be at least 0, not {penalty}")
    if new < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {new}")


class _Beams:
    """The prefixes that a beam search keeps: `num_beams` rows for each prompt."""

    def __init__(
        self,
        prompt: Tensor,
        num_beams: int,
        limit: int,
        penalty: float,
        stops: list[int],
    ) -> None:
        self.num_beams, self.limit = num_beams, limit
        self.penalty, self.stops = penalty, prompt.new_tensor(stops)
        self.start = prompt.shape[1]
        self.tokens = prompt.repeat_interleave(num_beams, dim=0)
        # All beams of a prompt are the same at first: only one of them counts.
        self.score = torch.full(
            (prompt.shape[0], num_beams), -torch.inf, device=prompt.device
        )
        self.score[:, 0] = 0.0
        self.finished: list[Tensor | None] = [None] * prompt.shape[0]
        self.finished_score = torch.full(
            (prompt.shape[0],), -torch.inf, device=prompt.device
        )

    def grow(self, logits: Float[Tensor, "rows vocab"]) -> Int[Tensor, " rows"]:
        """Extend each prefix by a token; return the rows from which they continue."""
        batch, vocab = self.score.shape[0], logits.shape[-1]
        total = self.score[..., None] + logits.float().log_softmax(-1).view(
            batch, self.num_beams, vocab
        )
        # Of each beam as many candidates stop as there are stop tokens, and one more
        # suffices. A narrow vocabulary may offer fewer; dead ends score -inf.
        count = min(1 + len(self.stops), vocab) * self.num_beams
        score, index = total.flatten(1).topk(count)
        beam, token = index // vocab, index % vocab
        first = torch.arange(batch, device=beam.device)[:, None] * self.num_beams
        # An end must be among the best `num_beams`: one beam is then greedy.
        best = slice(self.num_beams)
        self._finish(score[:, best], (beam + first)[:, best], token[:, best])
        score = score.masked_fill(torch.isin(token, self.stops), -torch.inf)
        self.score, keep = score.topk(self.num_beams)
        rows = (beam + first).gather(1, keep).flatten()
        chosen = token.gather(1, keep).view(-1, 1)
        self.tokens = torch.cat((self.tokens[rows], chosen), dim=1)
        return rows

    def _finish(self, score: Tensor, row: Tensor, token: Tensor) -> None:
        """Keep each prompt's best candidate that stops here, if it is its best yet."""
        length = self.tokens.shape[1] + 1 - self.start
        ended = torch.isin(token, self.stops) & score.isfinite()
        value = score.masked_fill(~ended, -torch.inf) / length**self.penalty
        best, which = value.max(dim=1)
        for prompt in (best > self.finished_score).nonzero()[:, 0].tolist():
            prefix, last = row[prompt, which[prompt]], token[prompt, which[prompt]]
            self.finished[prompt] = torch.cat((self.tokens[prefix], last[None]))
            self.finished_score[prompt] = best[prompt]

    def settled(self) -> bool:
        """Say whether no unfinished prefix can still win; its sum can only fall."""
        bound = self.score[:, 0] / self.limit**self.penalty
        return bool((self.finished_score >= bound).all())

    def best(self, pad: int) -> tuple[Tensor, Tensor]:
        """Return each prompt's best output, padded to one length, and its score.

        Before the limit a prefix never is better: the search would have gone on.
        """
        length = self.tokens.shape[1] - self.start
        open_score = self.score[:, 0] / length**self.penalty
        score = torch.maximum(self.finished_score, open_score)
        prefix = self.tokens[:: self.num_beams]
        is_open = (open_score > self.finished_score).tolist()
        rows = [
            prefix[i] if done is None or is_open[i] else done
            for i, done in enumerate(self.finished)
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, True, pad), score
