"""Parts, precision and compilation change how a step is computed, not its meaning."""

import json
import math
from functools import partial
from typing import Any

import pytest
import torch
from small_models import FAMILIES, POSITIONS, no_shape_checks, small_model
from small_runs import BATCHES, STEPS, TOKENIZER, run, small_transformer
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from tfcourse.data.pairs import (
    Batch,
    label_batch,
    prefix_batch,
    translation_batch,
)
from tfcourse.training.compute import Compute, make_accelerator, parts_of, share
from tfcourse.training.loop import DivergenceError, train_step
from tfcourse.training.optimizer import adamw, sgd
from tfcourse.training.step import backward, batch_loss

MAKE = {
    "encoder-decoder": translation_batch,
    "decoder": prefix_batch,
    "encoder": label_batch,
}
TEXTS = ["1", "23456", "0123", "55", "6", "60606", "2"]


def uneven_batch(family: str) -> Batch:
    """Return seven rows of unequal length, one of which asks for nothing."""
    pairs = [(text, text[:1] if family == "encoder" else text) for text in TEXTS]
    batch = MAKE[family](pairs, TOKENIZER)
    batch.target[0] = -100
    return batch


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parts", [2, 3, 7, 50])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_parts_add_up_to_the_large_batch(
    family: str, parts: int, smoothing: float
) -> None:
    model, batch = small_model(family, dtype=torch.float64), uneven_batch(family)
    loss = partial(batch_loss, label_smoothing=smoothing, z_loss=1e-3)
    mean, norm, count = backward(model, batch, loss=loss)
    expected = gradients(model)
    model.zero_grad()
    calls = []

    def counted(model: nn.Module, part: Batch) -> tuple[Tensor, Tensor]:
        calls.append(len(part.tokens))
        return loss(model, part)

    in_parts = backward(model, batch, loss=counted, compute=Compute(parts=parts))
    torch.testing.assert_close(in_parts[:2], (mean, norm), rtol=1e-12, atol=0)
    assert in_parts[2] == count
    torch.testing.assert_close(gradients(model), expected, rtol=1e-11, atol=1e-14)
    assert len(calls) == min(parts, 7)
    assert sum(calls) == 7


@pytest.mark.parametrize("family", ["encoder", "encoder-decoder"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("parts", [1, 2])
def test_rows_that_share_a_row_give_the_same_gradient(
    family: str, position: str, parts: int
) -> None:
    model = small_model(family, dtype=torch.float64, position=position)
    batch = uneven_batch(family)
    mean, norm, count = backward(model, batch)
    expected = gradients(model)
    model.zero_grad()
    shapes = []

    def seen(model: nn.Module, part: Batch) -> tuple[Tensor, Tensor]:
        shapes.append(part.tokens.shape)
        return batch_loss(model, part)

    found = backward(model, batch, loss=seen, compute=Compute(parts=parts, packed=True))
    torch.testing.assert_close(found[:2], (mean, norm), rtol=1e-12, atol=0)
    assert found[2] == count
    torch.testing.assert_close(gradients(model), expected, rtol=1e-11, atol=1e-14)
    assert len(shapes) == parts
    assert sum(rows for rows, _ in shapes) < len(TEXTS)


def test_a_packed_row_may_be_longer_than_a_text() -> None:
    model = small_model("encoder-decoder", max_seq_len=6, dtype=torch.float64)
    batch = uneven_batch("encoder-decoder")
    assert batch.tokens.shape[1] == 6
    (packed,) = parts_of(batch, Compute(packed=True), make_accelerator())
    assert packed.tokens.shape[1] > 6
    mean, *_ = backward(model, batch)
    model.zero_grad()
    found, *_ = backward(model, batch, compute=Compute(packed=True))
    torch.testing.assert_close(found, mean, rtol=1e-12, atol=0)


def test_a_part_has_rows_of_like_length_and_ends_with_the_longest() -> None:
    batch = uneven_batch("encoder-decoder")
    parts = parts_of(batch, Compute(parts=4), make_accelerator())
    assert [part.source.shape for part in parts] == [(2, 1), (2, 2), (2, 5), (1, 5)]
    assert [part.tokens.shape for part in parts] == [(2, 2), (2, 3), (2, 6), (1, 6)]
    found = torch.cat([part.source[part.source_valid] for part in parts])
    assert torch.equal(found.sort()[0], batch.source[batch.source_valid].sort()[0])


@pytest.mark.parametrize("other", [Compute(parts=3), Compute(packed=True)])
def test_a_run_in_parts_or_packed_is_the_run_in_one(other: Compute) -> None:
    cut = parts_of(BATCHES[0], other, make_accelerator())
    assert cut[0].tokens.shape != BATCHES[0].tokens.shape
    ends = []
    for compute in (Compute(), other):
        model = small_transformer(dropout=0.0).double()
        # Not Adam, which makes a step of any rounding error near zero.
        options = {"optimizer": sgd(model, lr=0.1), "lr": None}
        run(None, steps=12, model=model, compute=compute, **options)
        ends.append(list(model.parameters()))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 9])
def test_shares_hold_each_row_once(count: int) -> None:
    batch = uneven_batch("encoder-decoder")
    shares = [share(batch, index, count) for index in range(count)]
    rows = torch.cat([part.tokens for part in shares if (part.target != -100).any()])
    asked = batch.tokens[1:]  # the first row asks for nothing
    found = {tuple(row) for row in rows.tolist()}
    assert {tuple(row) for row in asked.tolist()} <= found
    assert (
        sum((part.target != -100).sum() for part in shares)
        == (batch.target != -100).sum()
    )
    for index, part in enumerate(shares):
        expected = batch.source[index::count] if index < 7 else batch.source[:1]
        assert torch.equal(part.source, expected)
        assert part.source_valid.shape == part.source.shape
        assert part.valid is None
    assert shares[0] is batch or count > 1


def test_a_process_without_rows_has_as_many_parts_that_ask_for_nothing() -> None:
    class Second:
        process_index, num_processes = 1, 2

    class First(Second):
        process_index = 0

    batch = share(uneven_batch("decoder"), 1, 6)  # one or two rows
    batch = share(batch, 0, 2)
    assert len(batch.tokens) == 1
    compute = Compute(parts=4)
    with no_shape_checks():
        mine, other = (parts_of(batch, compute, who()) for who in (First, Second))
    assert len(mine) == len(other) == 1
    assert torch.equal(mine[0].target, batch.target)
    assert (other[0].target == -100).all()


def test_bf16_computes_in_16_bits_and_keeps_weights_in_32() -> None:
    seen: list[torch.dtype] = []
    model = small_transformer()
    model.decoder.blocks[0].feed_forward.widen.register_forward_hook(
        lambda module, given, out: seen.append(out.dtype)
    )
    history = run(None, model=model, compute=Compute("bf16"), evaluate=None)
    assert set(seen) == {torch.bfloat16}
    exact = run(None, evaluate=None)
    assert history.losses != exact.losses
    assert history.losses == pytest.approx(exact.losses, rel=0.05)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_evaluations_are_in_full_precision() -> None:
    seen: list[torch.dtype] = []

    def evaluate(model: nn.Module) -> float:
        seen.append(model(BATCHES[0].tokens, BATCHES[0].source).dtype)
        return 0.0

    run(None, steps=4, compute=Compute("bf16"), evaluate=evaluate)
    assert seen == [torch.float32]


def scaler_of(compute: Compute) -> GradScaler:
    scaler = compute.scaler(torch.device("cpu"))
    assert scaler is not None
    scaler.scale(torch.ones(()))  # its scale is made at the first use
    return scaler


def test_fp16_scales_losses_and_leaves_out_steps_that_overflow() -> None:
    model = small_transformer(dropout=0.0)
    compute = Compute("fp16")
    scaler = scaler_of(compute)
    optimizer = sgd(model, lr=0.1)
    scaler.update(2.0**40)  # far too large
    before = [p.detach().clone() for p in model.parameters()]
    first = train_step(
        model, BATCHES[0], optimizer, compute=compute, scaler=scaler, clip=None
    )
    assert not math.isfinite(first.gradient_norm)
    assert all(map(torch.equal, before, model.parameters()))
    assert scaler.get_scale() == 2.0**39
    scaler.update(2.0**8)
    exact, _, _ = backward(model, BATCHES[0], clip=None)
    model.zero_grad()
    result = train_step(model, BATCHES[0], optimizer, compute=compute, scaler=scaler)
    assert result.loss == pytest.approx(exact.item(), rel=1e-2)
    assert result.gradient_norm < 100
    assert not any(map(torch.equal, before, model.parameters()))


def test_fp16_that_overflows_without_scaling_is_divergence() -> None:
    model, compute = small_transformer(), Compute("fp16")
    scaler = scaler_of(compute)
    scaler.update(1.0)

    def overflow(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        # The square root is 0 at 0, and its slope there is infinite.
        weight = model.embedding.weight
        return (weight - weight.detach()).sum().sqrt(), torch.tensor(1)

    with pytest.raises(DivergenceError, match=r"gradient norm (inf|nan)"):
        train_step(
            model,
            BATCHES[0],
            sgd(model, lr=0.1),
            loss=overflow,
            compute=compute,
            scaler=scaler,
        )


def test_an_fp16_run_goes_on_with_its_scale(tmp_path: Any) -> None:
    options = {"compute": Compute("fp16"), "evaluate": None}
    run(tmp_path / "whole", steps=20, **options)
    run(tmp_path / "parts", steps=13, **options)
    run(tmp_path / "parts", steps=20, resume=True, **options)
    ends = [tmp_path / name / "step-00000020" for name in ("whole", "parts")]
    first, second = ((end / "model.safetensors").read_bytes() for end in ends)
    assert first == second
    first, second = (json.loads((end / "state.json").read_text()) for end in ends)
    assert first["facts"]["scaler"] == second["facts"]["scaler"]
    assert first["facts"]["scaler"]["_growth_tracker"] > 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, not fp8"),
        ({"parts": 0}, "parts must be at least 1, not 0"),
    ],
)
def test_impossible_values_are_named(options: dict[str, Any], message: str) -> None:
    with no_shape_checks(), pytest.raises(ValueError, match=message):
        Compute(**options)


def test_processes_that_do_not_see_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert make_accelerator().num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were started, but accelerate se"):
        make_accelerator()


def test_an_accelerator_can_be_given() -> None:
    accelerator = make_accelerator()
    history = run(None, steps=3, compute=Compute(accelerator=accelerator))
    assert history.losses == run(None, steps=3).losses
    assert STEPS == 60
    model = small_transformer()
    result = train_step(
        model,
        BATCHES[0],
        adamw(model, lr=0.1),
        compute=Compute(accelerator=accelerator),
    )
    assert result.tokens == (BATCHES[0].target != -100).sum()
