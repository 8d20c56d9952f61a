"""New tokens a second: tfcourse's generation and that of its peers, greedily."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.peers import Peer, check, disturb, peers_of
from benchmarks.shapes import Shape
from benchmarks.timing import race, ratio
from benchmarks.training import OURS, Setting, about
from tfcourse.generation import generate
from tfcourse.model.cache import KVCache, StaticKVCache
from tfcourse.model.transformer import Transformer

PROMPT = 16
STATIC = "tfcourse, static cache"
Decode = Callable[[], Tensor]


@dataclass(frozen=True)
class Decoder:
    """Someone who continues a prompt; one who samples need not find the same tokens."""

    name: str
    style: str
    run: Decode
    is_greedy: bool = True


def decoders(shape: Shape, setting: Setting, batch: int, new: int) -> Iterator[Decoder]:
    """Yield the peers that generate, and ours with the weights of each.

    A compiled setting compiles our models, whose static cache is meant for it, and
    leaves the peers as they are: what they compile is for their own loops to choose.
    """
    if shape.family != "decoder" or PROMPT + new > shape.length:
        raise ValueError(
            f"decoding takes a decoder with room for {PROMPT} + {new} tokens, not "
            f"{shape.name} with {shape.length}"
        )
    prompt = torch.randint(shape.vocab, (batch, PROMPT)).to(setting.device)
    for peer in peers_of(shape, setting.nanogpt):
        if peer.name == "torch.nn":  # it has no generation
            continue
        check(peer, shape)
        theirs = cast(Any, disturb(peer.build(shape))).to(setting.device).eval()
        if peer.name != "nanoGPT":  # it has the sizes of GPT-2, which ours have already
            yield from _ours(_copied(peer, theirs, shape), peer, setting, prompt, new)
        yield from _theirs(peer, theirs, prompt, new)


@torch.no_grad()
def _copied(peer: Peer, theirs: Any, shape: Shape) -> Transformer:
    device = next(theirs.parameters()).device
    return peer.to_ours(theirs, shape).to(device).eval()


def _ours(
    model: Transformer, peer: Peer, setting: Setting, prompt: Tensor, new: int
) -> Iterator[Decoder]:
    room = len(prompt), prompt.shape[1] + new

    def grow() -> Tensor:
        return generate(model, prompt, max_new_tokens=new, cache=KVCache())

    def fill() -> Tensor:
        rows, capacity = room
        cache = StaticKVCache(
            model.config, batch=rows, capacity=capacity, device=prompt.device
        )
        return generate(model, prompt, max_new_tokens=new, cache=cache)

    if setting.compiled:
        # Python calls each of the few kernels of a token otherwise. Unlike in training,
        # dynamic=False would halve the speed: what was read grows with every token.
        model.compile(options={"cpp_wrapper": setting.device == "cpu"})
    else:
        yield Decoder(OURS, peer.style, grow)
    yield Decoder(STATIC, peer.style, fill)


def _theirs(peer: Peer, model: Any, prompt: Tensor, new: int) -> Iterator[Decoder]:
    if peer.name == "x-transformers":
        from x_transformers import AutoregressiveWrapper

        wrapped = AutoregressiveWrapper(model)

        def x_transformers() -> Tensor:
            return torch.cat(
                (prompt, wrapped.generate(prompt, new, temperature=0.0)), 1
            )

        yield Decoder(peer.name, peer.style, x_transformers)
    elif peer.name == "nanoGPT":
        yield Decoder(
            "nanoGPT, no cache",
            peer.style,
            lambda: model.generate(prompt, new),
            is_greedy=False,
        )
    else:
        yield from _hugging_face(peer, model, prompt, new)


def _hugging_face(
    peer: Peer, model: Any, prompt: Tensor, new: int
) -> Iterator[Decoder]:
    greedily = partial(
        model.generate,
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )
    yield Decoder(peer.name, peer.style, greedily)
    static = partial(greedily, cache_implementation="static")
    yield Decoder(f"{peer.name}, static cache", peer.style, static)


def time_decoding(
    shape: Shape, setting: Setting, *, batch: int, new: int
) -> list[dict[str, Any]]:
    """Return a row of times for each way to decode, with its ratio to our best.

    Those of a style that are greedy must give the same tokens, or `ValueError` is
    raised: only then do they do the same work.
    """
    entered = {f"{d.name}|{d.style}": d for d in decoders(shape, setting, batch, new)}
    _compare(list(entered.values()), (batch, PROMPT + new))
    runs = {name: decoder.run for name, decoder in entered.items()}
    samples = race(runs, rounds=setting.rounds, limit=setting.limit, warmup=1)
    rows = []
    for name, decoder in entered.items():
        ours = [
            samples[f"{own}|{decoder.style}"]
            for own in (OURS, STATIC)
            if f"{own}|{decoder.style}" in samples
        ]
        row = about("decode", shape, setting) | {
            "title": f"{shape.family}, d {shape.width}, {shape.layers} layers, "
            f"{new} new tokens, batch {batch}",
            "batch": batch,
            "new": new,
            "contender": decoder.name,
            "style": decoder.style,
            **samples[name].summary(),
        }
        row["tokens_per_second"] = batch * new / row["seconds"]["median"]
        if decoder.name not in (OURS, STATIC):
            row["ratio"] = max(ratio(samples[name], own) for own in ours)
            row["cpu_ratio"] = max(ratio(samples[name], own, "cpu") for own in ours)
        rows.append(row)
    return rows


def _compare(entered: list[Decoder], shape: tuple[int, int]) -> None:
    first: dict[str, Tensor] = {}
    for decoder in entered:
        found = decoder.run()
        if tuple(found.shape) != shape:
            raise ValueError(f"{decoder.name} gave {tuple(found.shape)}, not {shape}")
        if decoder.is_greedy:
            expected = first.setdefault(decoder.style, found)
            if not torch.equal(expected, found):
                raise ValueError(f"{decoder.name} gave other tokens than the first")
