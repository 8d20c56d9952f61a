"""Nothing is timed that does not compute what ours computes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_shapes import SMALL

from benchmarks import peers
from benchmarks.peers import Peer, check, nano_gpt, peers_of
from benchmarks.shapes import Shape, config_of, random_batch
from tfcourse.data.pairs import IGNORE
from tfcourse.training.losses import token_loss

pytest.importorskip("x_transformers")

PAIRS = [
    pytest.param(peer, shape, id=f"{family}-{peer.name}")
    for family, shape in SMALL.items()
    for peer in peers_of(shape)
]


@pytest.mark.parametrize(("peer", "shape"), PAIRS)
def test_a_peer_has_our_parameters_and_our_logits(peer: Peer, shape: Shape) -> None:
    assert check(peer, shape) > 1000


@pytest.mark.parametrize(("peer", "shape"), PAIRS)
def test_padding_is_seen_by_no_peer(peer: Peer, shape: Shape) -> None:
    batch, model = random_batch(shape), peer.build(shape).eval()
    if batch.source is not None:
        hidden, tokens = ~batch.source_valid, batch.source
        changed = replace(batch, source=torch.where(hidden, 1 - tokens % 2, tokens))
    elif batch.valid is not None:
        tokens = torch.where(batch.valid, batch.tokens, 1 - batch.tokens % 2)
        changed = replace(batch, tokens=tokens)
    else:
        tokens = torch.cat((batch.tokens[:, :-1], batch.tokens[:, -1:] * 0), dim=1)
        changed = replace(batch, tokens=tokens)
    with torch.no_grad():
        before, after = peer.logits(model, batch), peer.logits(model, changed)
    seen = slice(0, -1) if shape.family == "decoder" else slice(None)
    asked = (batch.target != IGNORE)[:, seen]
    torch.testing.assert_close(before[:, seen][asked], after[:, seen][asked])


@pytest.mark.parametrize(("peer", "shape"), PAIRS)
def test_the_loss_is_that_of_ours(peer: Peer, shape: Shape) -> None:
    batch, model = random_batch(shape), peer.build(shape).eval()
    total, count = token_loss(peer.logits(model, batch), batch.target)
    torch.testing.assert_close(peer.loss(model, batch), total / count)


def test_another_number_of_parameters_is_refused() -> None:
    narrow = replace(peers.TORCH_NN, style="plain")
    with pytest.raises(ValueError, match=r"torch.nn has \d+ parameters"):
        check(narrow, SMALL["decoder"])


def test_other_logits_are_refused() -> None:
    wrong = replace(
        peers.TORCH_NN, logits=lambda model, batch: model(batch).roll(1, dims=1)
    )
    with pytest.raises(ValueError, match="are off by"):
        check(wrong, SMALL["decoder"])


def test_weights_that_are_not_there_are_named() -> None:
    model = peers.Transformer(config_of(SMALL["decoder"], "biased"))
    with pytest.raises(ValueError, match=r"embedding\.weight has no name"):
        peers.load({}, {}, model)
    with pytest.raises(ValueError, match=r"wte\.weight is not among"):
        peers.load({}, {"embedding": "wte"}, model)


NANO = """
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool


def named(**parts):
    return nn.ModuleDict(parts)


class GPT(nn.Module):
    def __init__(self, c):
        super().__init__()
        print("number of parameters")
        d, self.heads = c.n_embd, c.n_head
        self.transformer = named(
            wte=nn.Embedding(c.vocab_size, d),
            wpe=nn.Embedding(c.block_size, d),
            h=nn.ModuleList(
                named(
                    ln_1=nn.LayerNorm(d),
                    attn=named(c_attn=nn.Linear(d, 3 * d), c_proj=nn.Linear(d, d)),
                    ln_2=nn.LayerNorm(d),
                    mlp=named(c_fc=nn.Linear(d, 4 * d), c_proj=nn.Linear(4 * d, d)),
                )
                for _ in range(c.n_layer)
            ),
            ln_f=nn.LayerNorm(d),
        )

    def forward(self, idx, targets=None):
        t = self.transformer
        x = t.wte(idx) + t.wpe.weight[: idx.shape[1]]
        for b in t.h:
            parts = b.attn.c_attn(b.ln_1(x)).chunk(3, -1)
            q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + b.attn.c_proj(mixed.transpose(1, 2).flatten(2))
            x = x + b.mlp.c_proj(F.gelu(b.mlp.c_fc(b.ln_2(x))))
        x = F.linear(t.ln_f(x), t.wte.weight)
        if targets is None:
            return x[:, -1:], None
        return x, F.cross_entropy(x.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(self, idx, count):
        for _ in range(count):
            chosen = torch.multinomial(self(idx)[0][:, -1].softmax(-1), 1)
            idx = torch.cat((idx, chosen), dim=1)
        return idx
"""


@pytest.fixture
def nano_file(tmp_path: Path) -> Path:
    """Return a model.py with nanoGPT's names and signatures, in our own words."""
    path = tmp_path / "model.py"
    path.write_text(NANO, encoding="utf-8")
    return path


def test_nanogpt_is_read_from_its_file(nano_file: Path, capsys) -> None:
    peer, shape = nano_gpt(nano_file), SMALL["decoder"]
    assert check(peer, shape) > 1000
    assert capsys.readouterr().out == ""  # it prints when it is built
    batch, model = random_batch(shape), peer.build(shape)
    total, count = token_loss(peer.logits(model, batch), batch.target)
    torch.testing.assert_close(peer.loss(model, batch), total / count)


@pytest.mark.parametrize("text", [None, "class GPT: pass\n"])
def test_another_file_is_no_nanogpt(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "model.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"model\.py"):
        nano_gpt(path)
