"""The token loss: the formula, the sum and the count, and what it refuses."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import small_config
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tfcourse.data.pairs import Batch
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer
from tfcourse.training.compute import Compute
from tfcourse.training.losses import token_loss
from tfcourse.training.step import backward, batch_loss


def some_logits(*shape: int) -> tuple[Tensor, Tensor]:
    """Return float64 logits, and targets of which about a third are ignored."""
    logits = torch.randn(*shape, dtype=torch.float64)
    target = torch.randint(shape[-1], shape[:-1])
    target[torch.rand(shape[:-1]) < 0.3] = -100
    target[..., 0] = -100
    return logits, target


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("shape", [(4, 5, 11), (7, 11)])
def test_the_sum_is_pytorchs_and_the_formulas(
    shape: tuple[int, ...], smoothing: float
) -> None:
    logits, target = some_logits(*shape)
    total, count = token_loss(logits, target, label_smoothing=smoothing)
    theirs = F.cross_entropy(
        logits.flatten(0, -2),
        target.flatten(),
        reduction="sum",
        label_smoothing=smoothing,
    )
    by_hand = 0.0
    for row, right in zip(logits.flatten(0, -2), target.flatten(), strict=True):
        if right != -100:
            wanted = torch.full_like(row, smoothing / 11)
            wanted[right] += 1 - smoothing
            by_hand -= (wanted * row.log_softmax(-1)).sum()
    torch.testing.assert_close(total, theirs)
    torch.testing.assert_close(total, by_hand)
    assert count.item() == (target != -100).sum().item() > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_z_loss_is_the_square_of_log_z_of_each_target(smoothing: float) -> None:
    logits, target = some_logits(4, 5, 11)
    plain, count = token_loss(logits, target, label_smoothing=smoothing)
    total, same = token_loss(logits, target, label_smoothing=smoothing, z_loss=0.25)
    log_z = logits.exp().sum(-1).log()
    expected = plain + 0.25 * log_z[target != -100].square().sum()
    torch.testing.assert_close(total, expected)
    assert count == same


def test_the_z_loss_pulls_log_z_to_zero_and_spares_what_is_ignored() -> None:
    logits, target = some_logits(4, 5, 11)
    logits.requires_grad_()
    plain, _ = token_loss(logits, target)
    with_z, _ = token_loss(logits, target, z_loss=0.5)
    (pull,) = torch.autograd.grad(with_z - plain, logits)
    log_z = logits.logsumexp(-1, keepdim=True)
    expected = log_z * logits.softmax(-1) * (target != -100)[..., None]
    torch.testing.assert_close(pull, expected)


@pytest.mark.parametrize("z_loss", [-1e-4, float("inf"), float("nan")])
def test_an_impossible_z_loss_is_named(z_loss: float) -> None:
    with pytest.raises(ValueError, match=f"z_loss must be .* not {z_loss}"):
        token_loss(torch.zeros(2, 5), torch.zeros(2, dtype=torch.long), z_loss=z_loss)


def test_sums_of_parts_are_the_sum_of_the_whole() -> None:
    logits, target = some_logits(6, 5, 11)
    whole, count = token_loss(logits, target, label_smoothing=0.1)
    parts = [
        token_loss(logits[rows], target[rows], label_smoothing=0.1)
        for rows in (slice(0, 1), slice(1, 6))
    ]
    torch.testing.assert_close(sum(total for total, _ in parts), whole)
    assert sum(n for _, n in parts) == count


def test_what_is_ignored_gets_no_gradient() -> None:
    logits, target = some_logits(4, 5, 11)
    logits.requires_grad_()
    total, _ = token_loss(logits, target, label_smoothing=0.1)
    total.backward()
    got_some = logits.grad.abs().sum(-1) > 0
    assert torch.equal(got_some, target != -100)


def test_another_number_can_be_the_one_that_is_ignored() -> None:
    logits, target = some_logits(4, 5, 11)
    renamed = target.masked_fill(target == -100, 7)
    seven_too = target.masked_fill(target == 7, -100)
    ours, count = token_loss(logits, renamed, ignore=7)
    expected, expected_count = token_loss(logits, seven_too)
    assert ours == expected
    assert count == expected_count


def test_nothing_to_count_is_zero_of_zero() -> None:
    total, count = token_loss(torch.randn(2, 3, 5), torch.full((2, 3), -100))
    assert (total.item(), count.item()) == (0.0, 0)


def test_sixteen_bit_logits_are_summed_in_thirty_two() -> None:
    logits = torch.randn(4096, 11).bfloat16()
    target = torch.randint(11, (4096,))
    total, _ = token_loss(logits, target)
    assert total.dtype == torch.float32
    exact, _ = token_loss(logits.double(), target)
    assert abs(total.item() - exact.item()) < 1e-5 * exact.item()


def test_sum_and_count_stay_on_the_device() -> None:
    total, count = token_loss(
        torch.randn(2, 3, 5, device="meta"),
        torch.zeros(2, 3, dtype=torch.long, device="meta"),
    )
    assert total.is_meta
    assert count.is_meta
    assert not count.is_floating_point()


@pytest.mark.parametrize(
    ("logits", "target"),
    [((2, 3, 5), (2, 4)), ((2, 3, 5), (6,)), ((2, 3, 5), (2, 3, 5)), ((), ())],
)
def test_shapes_that_do_not_match_are_named(
    logits: tuple[int, ...], target: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="shapes are") as error:
        token_loss(torch.zeros(logits), torch.zeros(target, dtype=torch.long))
    assert f"{logits} and {target}" in str(error.value)


@pytest.mark.parametrize(
    ("logits", "target", "named"),
    [
        (torch.float32, torch.float32, "torch.float32 and torch.float32"),
        (torch.int64, torch.int64, "torch.int64 and torch.int64"),
        (torch.float32, torch.int32, "torch.float32 and torch.int32"),
    ],
)
def test_types_that_do_not_fit_are_named(
    logits: torch.dtype, target: torch.dtype, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        token_loss(torch.zeros(2, 5, dtype=logits), torch.zeros(2, dtype=target))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_out_of_range_is_named(smoothing: float) -> None:
    with pytest.raises(ValueError, match=f"label_smoothing .* not {smoothing}"):
        token_loss(
            torch.zeros(2, 5),
            torch.zeros(2, dtype=torch.long),
            label_smoothing=smoothing,
        )


def batch_of(config: TransformerConfig) -> Batch:
    """Return a batch in which a third of the targets, and the last row, ask nothing."""
    tokens = torch.randint(config.vocab_size, (4, 6))
    target = torch.randint(config.vocab_size, (4, 6))
    target[torch.rand(4, 6) < 0.3] = -100
    target[0, 0], target[-1] = 3, -100
    source = torch.randint(config.vocab_size, (4, 5))
    both = config.num_encoder_layers and config.num_decoder_layers
    return Batch(tokens, target, source=source if both else None)


def loss_and_gradients(
    model: Transformer, batch: Batch, **options: Any
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    model.zero_grad()
    total, count = batch_loss(model, batch, **options)
    (total * 3 / count.clamp(min=1)).backward()
    return total.detach(), count, [parameter.grad for parameter in model.parameters()]


HEADS = {
    "tied": {},
    "untied": {"tie_embeddings": False},
    "mlm with a bias": {"head": "mlm", "head_bias": True},
    "scaled": {"scale_logits": True},
}


@pytest.mark.parametrize("chunk", [1, 4, 1000])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["encoder-decoder", "encoder", "decoder"])
def test_in_chunks_loss_and_gradients_are_those_of_the_whole(
    family: str, head: str, chunk: int
) -> None:
    model = Transformer(small_config(family, **HEADS[head])).double()
    batch = batch_of(model.config)
    options = {"label_smoothing": 0.1, "z_loss": 0.01}
    expected = loss_and_gradients(model, batch, **options)
    found = loss_and_gradients(model, batch, chunk=chunk, **options)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_in_chunks_what_is_frozen_stays_without_a_gradient() -> None:
    model = Transformer(small_config("decoder", tie_embeddings=False)).double()
    assert model.unembedding is not None
    model.unembedding.requires_grad_(False)
    batch = batch_of(model.config)
    expected = loss_and_gradients(model, batch)
    found = loss_and_gradients(model, batch, chunk=3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert model.unembedding.weight.grad is None


def test_in_chunks_a_batch_that_asks_nothing_is_zero() -> None:
    model = Transformer(small_config("decoder"))
    batch = batch_of(model.config)
    empty = Batch(batch.tokens, torch.full_like(batch.target, -100))
    total, count, gradients = loss_and_gradients(model, empty, chunk=3)
    assert (total.item(), count.item()) == (0.0, 0)
    assert all(g is None or not g.any() for g in gradients)


def test_in_chunks_the_logits_are_never_there_as_a_whole() -> None:
    class Largest(TorchDispatchMode):
        """Notes the largest tensor that is made."""

        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            sizes = [t.numel() for t in tree_leaves(made) if isinstance(t, Tensor)]
            self.size = max([self.size, *sizes])
            return made

    model = Transformer(small_config("decoder", vocab_size=500))
    batch = batch_of(model.config)
    sizes = []
    for chunk in (None, 2):
        with Largest() as largest:
            loss_and_gradients(model, batch, chunk=chunk)
        sizes.append(largest.size)
    tokens = batch.tokens.numel()
    weights = model.embedding.weight.numel()
    assert sizes[0] == 500 * tokens > weights
    assert sizes[1] == weights


@pytest.mark.parametrize("parts", [1, 3])
def test_in_chunks_16_bits_and_parts_give_about_the_same(parts: int) -> None:
    model = Transformer(small_config("decoder"))
    batch = batch_of(model.config)
    found = []
    for chunk in (None, 4):
        model.zero_grad()
        loss = partial(batch_loss, chunk=chunk)
        mean, _, count = backward(
            model, batch, loss=loss, compute=Compute("bf16", parts=parts)
        )
        found.append((mean, count, [p.grad for p in model.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=0.05, atol=0.02)


def test_a_chunk_of_nothing_is_refused() -> None:
    model = Transformer(small_config("decoder"))
    with pytest.raises(ValueError, match="chunk must be at least 1 token, not 0"):
        batch_loss(model, batch_of(model.config), chunk=0)
