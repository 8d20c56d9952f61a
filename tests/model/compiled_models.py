"""Compile small models, count the graphs, print one JSON line for each case.

A program of its own: the shape checks that tests put around every function are no part
of a graph. Run by test_compile.py.
"""

import json
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from small_models import POSITIONS, small_model, some_tokens
from torch import Tensor

from tfcourse.generation import generate
from tfcourse.model.attention import record_attention
from tfcourse.model.cache import StaticKVCache
from tfcourse.model.masks import padding
from tfcourse.model.transformer import Transformer


class Graphs:
    """A backend that runs each graph as it is and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable:
        self.count += 1
        return graph.forward


def double(family: str, **options: Any) -> Transformer:
    torch.manual_seed(0)
    return small_model(family, dtype=torch.float64, max_seq_len=32, **options)


def compiled(model: Transformer, *, whole: bool = True) -> Graphs:
    """Compile in place; with `whole`, a break in a graph is an error."""
    torch.compiler.reset()
    graphs = Graphs()
    model.compile(backend=graphs, fullgraph=whole)
    return graphs


def decode(family: str, position: str, padded: bool) -> dict[str, Any]:
    """Generate twenty tokens by a static cache."""
    model = double(family, position=position, num_kv_heads=1)
    given: dict[str, Any] = {"max_new_tokens": 20}
    if family == "encoder-decoder":
        given["source"] = some_tokens(batch=2, seq=5)
    if padded:
        given["prompt_mask"] = torch.tensor([[False, True, True, True], [True] * 4])
    prompt = some_tokens(batch=2, seq=4)
    expected = generate(model, prompt, **given)
    graphs = compiled(model)
    cache = StaticKVCache(model.config, batch=2, capacity=24, dtype=torch.float64)
    found = generate(model, prompt, cache=cache, **given)
    return {"graphs": graphs.count, "equal": torch.equal(found, expected)}


def train(family: str, position: str) -> dict[str, Any]:
    """Do three steps forward and backward, with other padding each time."""
    expected = gradients(double(family, position=position, dropout=0.1, train=True))
    model = double(family, position=position, dropout=0.1, train=True)
    graphs = compiled(model)
    pairs = zip(gradients(model), expected, strict=True)
    same = all(torch.allclose(found, right) for found, right in pairs)
    return {"graphs": graphs.count, "equal": same}


def gradients(model: Transformer) -> list[Tensor]:
    """Return what three steps, the same for every model, add to each gradient."""
    torch.manual_seed(1)
    for _ in range(3):
        tokens = some_tokens()
        given: dict[str, Any] = {"mask": padding(torch.rand(3, 7) < 0.8)}
        if model.encoder is not None and model.decoder is not None:
            source = some_tokens(seq=5)
            given |= {"source": source, "source_mask": padding(source > 0)}
        logits = model(tokens, **given)
        F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    found = [part.grad for part in model.parameters()]
    assert all(part is not None and part.abs().max() > 0 for part in found)
    return found


def record() -> dict[str, Any]:
    """Run compiled, then recording, then as before."""
    model, tokens = double("decoder", position="relative"), some_tokens()
    expected = model(tokens)
    names = list(model.state_dict())
    graphs = compiled(model, whole=False)  # storing the weights is no part of a graph
    counts, same = [], [list(model.state_dict()) == names]
    for recording in (False, True, False):
        if recording:
            with record_attention(model) as weights:
                found = model(tokens)
            same.append(len(weights) == 2)
        else:
            found = model(tokens)
        same.append(torch.allclose(found, expected))
        counts.append(graphs.count)
    return {"graphs": counts, "equal": all(same)}


def main() -> None:
    both = [("encoder-decoder", "relative"), ("encoder-decoder", "rotary")]
    decoders = list(product(["decoder"], POSITIONS))
    for case in [*product(decoders, [True]), *product(both, [False, True])]:
        print(json.dumps({"name": f"decode {case}", **decode(*case[0], case[1])}))
    for case in [*decoders, *both, ("encoder", "relative")]:
        print(json.dumps({"name": f"train {case}", **train(*case)}))
    print(json.dumps({"name": "record", **record()}))


if __name__ == "__main__":
    main()
