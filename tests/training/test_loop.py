"""The loop: one step is what it should be by hand, a run is what its seed says."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import FAMILIES, small_config, small_model
from torch import Tensor, nn

from tfcourse.data.packed import PackedRows, pack, packed_batch
from tfcourse.data.pairs import (
    Batch,
    Batches,
    label_batch,
    prefix_batch,
    text_batch,
    translation_batch,
)
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.model.transformer import Transformer
from tfcourse.training.evaluation import exact_match
from tfcourse.training.loop import (
    DivergenceError,
    History,
    backward,
    batch_loss,
    fit,
    train_step,
)
from tfcourse.training.optimizer import adamw
from tfcourse.training.schedules import linear

TOKENIZER = Tokenizer.from_texts(["0123456"])  # with the four special ones, 11 ids
TEXTS = [f"{n % 7}{n % 5}{n % 3}"[: 1 + n % 3] for n in range(40)]
PAIRS = [(text, text) for text in TEXTS]
MAKE = {
    "encoder-decoder": translation_batch,
    "decoder": prefix_batch,
    "encoder": label_batch,
}


def batches_for(family: str = "encoder-decoder", **options: Any) -> Batches:
    items = [(a, b[0]) for a, b in PAIRS] if family == "encoder" else PAIRS
    return Batches(items, TOKENIZER, MAKE[family], size=8, **options)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def identical(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(map(torch.equal, first, second))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_of_a_step_is_the_mean_over_real_targets(family: str) -> None:
    model, batch = small_model(family), batches_for(family)[0]
    with torch.no_grad():
        logits = model(
            batch.tokens, batch.source, mask=batch.mask, source_mask=batch.source_mask
        )
    nats = [
        -logits[row, place].log_softmax(-1)[batch.target[row, place]].item()
        for row, place in (batch.target != -100).nonzero().tolist()
    ]
    result = train_step(model, batch, adamw(model, lr=0.1))
    assert result.tokens == len(nats)
    assert result.loss == pytest.approx(sum(nats) / len(nats), rel=1e-5)


@pytest.mark.parametrize("clip", [None, 1e9, 0.05])
def test_a_step_goes_down_the_gradient_cut_to_the_norm(clip: float | None) -> None:
    model, batch = small_model("encoder-decoder"), batches_for()[0]
    total, count = batch_loss(model, batch)
    gradient = torch.autograd.grad(total / count, list(model.parameters()))
    norm = math.sqrt(sum(g.square().sum().item() for g in gradient))
    cut = min(1.0, (clip or 1e9) / norm)
    expected = [
        w - 0.5 * cut * g for w, g in zip(weights(model), gradient, strict=True)
    ]
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    result = train_step(model, batch, sgd, clip=clip)
    assert result.gradient_norm == pytest.approx(norm, rel=1e-5)
    torch.testing.assert_close(weights(model), expected)


def test_a_second_step_does_not_see_the_first_ones_gradient() -> None:
    model = small_model("encoder-decoder")
    # Of some parameters only: the others' gradients count in the norm as well.
    sgd = torch.optim.SGD(model.encoder.parameters(), lr=0.0)
    first, second = (train_step(model, batches_for()[0], sgd) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_step_makes_no_tensor_on_another_device(family: str) -> None:
    model = small_model(family, train=True, dropout=0.1).to("meta")
    batch = batches_for(family)[0].to("meta")
    mean, norm, count = backward(model, batch)
    optimizer = adamw(model, lr=0.1)
    optimizer.step()
    assert mean.is_meta
    assert norm.is_meta
    assert count.is_meta
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())


def test_batches_are_moved_to_the_models_device() -> None:
    seen = []

    def look(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        seen.append((batch.tokens.device.type, batch.source_valid.device.type))
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(small_model("encoder-decoder").to("meta"), batches_for(), lr=1.0, loss=look)
    assert seen == [("meta", "meta")]


@pytest.mark.parametrize("family", ["encoder-decoder", "decoder"])
def test_a_tiny_model_learns_to_copy(family: str) -> None:
    one_each = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    layers = one_each if family == "encoder-decoder" else {"num_decoder_layers": 2}
    model = Transformer(small_config(family, d_model=32, d_ff=64, **layers))
    batches = Batches(PAIRS, TOKENIZER, MAKE[family], size=20, epochs=80)
    schedule = partial(linear, total=len(batches), warmup=10)
    history = fit(model, batches, lr=1e-2, schedule=schedule)
    assert history.losses[-1] < 0.05 * history.losses[0]
    assert exact_match(model, PAIRS, TOKENIZER) == 1.0


def test_an_encoder_learns_to_name_the_first_digit() -> None:
    model = Transformer(small_config("encoder", d_model=16, num_encoder_layers=1))
    batches = batches_for("encoder", epochs=20)
    fit(model, batches, lr=1e-2)
    batch = batches[0]
    named = model(batch.tokens, mask=batch.mask)[:, 0].argmax(-1)
    assert torch.equal(named, batch.target[:, 0])


def trained(seed: int, *, caller: int = 0, **options: Any) -> list[Tensor]:
    """Return the weights after a run, started with the caller's generator anywhere."""
    torch.manual_seed(7)
    model = small_model("encoder-decoder", dropout=0.2)
    torch.manual_seed(caller)
    fit(model, batches_for(), lr=1e-2, seed=seed, **options)
    return weights(model)


def test_the_seed_alone_decides_the_weights() -> None:
    first = trained(0, caller=1)
    assert identical(first, trained(0, caller=2))
    assert not identical(first, trained(1, caller=1))


def test_looking_does_not_change_what_is_trained() -> None:
    looked = trained(0, evaluate=lambda model: torch.rand(()).item(), every=1)
    assert identical(looked, trained(0))


def test_the_callers_random_numbers_are_not_touched() -> None:
    state = torch.get_rng_state()
    fit(small_model("encoder-decoder", dropout=0.2), batches_for(), lr=1e-2)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    small_model("encoder-decoder", dropout=0.2)
    assert torch.equal(after, torch.get_rng_state())


def test_the_history_says_what_happened() -> None:
    model, batches = small_model("encoder-decoder"), batches_for(epochs=2)
    schedule = partial(linear, total=10, warmup=4)
    history = fit(model, batches, lr=2e-3, schedule=schedule)
    assert history.steps == list(range(1, 11))
    rates = [2e-3 * schedule(step) for step in history.steps]
    assert history.learning_rates == pytest.approx(rates)
    targets = [(batch.target != -100).sum().item() for batch in batches]
    assert history.tokens == [sum(targets[: i + 1]) for i in range(10)]
    assert len(history.losses) == len(history.gradient_norms) == 10
    assert history.evaluations == []
    assert history.seconds > 0


def test_a_run_can_be_shorter_than_its_batches_and_go_over_a_list() -> None:
    batches = list(batches_for(epochs=2))
    history = fit(small_model("encoder-decoder"), batches, lr=1e-3, steps=3)
    assert history.steps == [1, 2, 3]
    assert history.tokens[-1] == sum((b.target != -100).sum() for b in batches[:3])


def test_a_schedule_is_a_factor_on_the_optimizers_own_rates_in_every_run() -> None:
    model = small_model("encoder-decoder")
    optimizer = torch.optim.SGD(
        [
            {"params": [model.embedding.weight], "lr": 1.0},
            {"params": list(model.decoder.parameters())},
        ],
        lr=1e-3,
    )
    for _ in range(2):
        history = fit(
            model, batches_for(), optimizer=optimizer, schedule=lambda step: 0.5**step
        )
        assert history.learning_rates == [0.5**step for step in range(1, 6)]
        assert optimizer.param_groups[1]["lr"] == 1e-3 * 0.5**5


@pytest.mark.parametrize(
    ("every", "steps"), [(None, [5]), (2, [2, 4, 5]), (5, [5]), (9, [5])]
)
def test_evaluation_is_at_the_steps_asked_for_and_the_last(
    every: int | None, steps: list[int]
) -> None:
    model = small_model("encoder-decoder", train=True)
    seen = []

    def evaluate(given: nn.Module) -> float:
        assert given is model
        seen.append((given.training, torch.is_grad_enabled()))
        return float(len(seen))

    history = fit(model, batches_for(), lr=1e-3, evaluate=evaluate, every=every)
    assert history.evaluations == [(s, i + 1.0) for i, s in enumerate(steps)]
    assert set(seen) == {(False, False)}


@pytest.mark.parametrize("training", [True, False])
def test_each_module_gets_its_mode_back(training: bool) -> None:
    model = small_model("encoder-decoder", train=training)
    model.encoder.train(not training)
    before = [module.training for module in model.modules()]
    seen = set()

    def loss(given: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        seen.update(module.training for module in given.modules())
        return batch_loss(given, batch)

    fit(model, batches_for(), lr=1e-3, loss=loss, evaluate=lambda model: 0.0)
    assert seen == {True}
    assert [module.training for module in model.modules()] == before
    with pytest.raises(DivergenceError):
        fit(model, batches_for(), lr=1e-3, loss=broken(1, float("nan")))
    assert [module.training for module in model.modules()] == before


def broken(step: int, factor: float) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return a loss that is multiplied by `factor` at one step."""
    calls = []

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        calls.append(batch)
        total, count = batch_loss(model, batch)
        return total * (factor if len(calls) == step else 1.0), count

    return loss


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_divergence_names_step_loss_and_rate_and_spares_the_weights(
    factor: float,
) -> None:
    model, twin = small_model("encoder-decoder"), small_model("encoder-decoder")
    twin.load_state_dict(model.state_dict())
    fit(twin, batches_for(), lr=2e-3, steps=2)
    message = rf"at step 3: the loss is {factor}, .* learning rate 0.002;"
    with pytest.raises(DivergenceError, match=message):
        fit(model, batches_for(), lr=2e-3, loss=broken(3, factor))
    assert identical(weights(model), weights(twin))


def test_a_gradient_that_is_not_finite_stops_a_finite_loss() -> None:
    def loss(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
        # The square root is 0 at 0, and its slope there is infinite.
        return model.embedding.weight.sub(
            model.embedding.weight.detach()
        ).sum().sqrt(), (torch.tensor(1))

    model = small_model("encoder-decoder")
    before = weights(model)
    with pytest.raises(
        DivergenceError, match=r"loss is 0.0, the gradient norm (inf|nan)"
    ):
        fit(model, batches_for(), lr=1e-3, loss=loss)
    assert identical(weights(model), before)


def test_a_loss_above_the_limit_is_divergence_and_spares_the_weights() -> None:
    model, twin = small_model("encoder-decoder"), small_model("encoder-decoder")
    twin.load_state_dict(model.state_dict())
    usual = fit(twin, batches_for(), lr=2e-3, steps=2).losses
    limit = 2 * max(usual)
    message = rf"at step 3: the loss is \d+\.\d+ \(at most {limit} is allowed\), "
    with pytest.raises(DivergenceError, match=message):
        fit(model, batches_for(), lr=2e-3, max_loss=limit, loss=broken(3, 10.0))
    assert identical(weights(model), weights(twin))


def test_a_loss_at_the_limit_is_not_above_it() -> None:
    model, twin = small_model("encoder-decoder"), small_model("encoder-decoder")
    twin.load_state_dict(model.state_dict())
    (first,) = fit(twin, batches_for(), lr=2e-3, steps=1).losses
    assert fit(model, batches_for(), lr=2e-3, steps=1, max_loss=first).losses == [first]


def test_a_batch_that_asks_for_nothing_is_named() -> None:
    model, batch = small_model("encoder-decoder"), batches_for()[0]
    empty = Batch(
        batch.tokens,
        torch.full_like(batch.target, -100),
        source=batch.source,
        source_valid=batch.source_valid,
    )
    with pytest.raises(ValueError, match="step 2: the batch has no target"):
        fit(model, [batch, empty], lr=1e-3)


def test_smoothing_can_be_asked_for() -> None:
    model, batch = small_model("encoder-decoder"), batches_for()[0]
    plain, _ = batch_loss(model, batch)
    smoothed, _ = batch_loss(model, batch, label_smoothing=0.5)
    assert smoothed.item() != pytest.approx(plain.item(), rel=1e-3)
    history = fit(
        model, [batch], lr=1e-3, loss=partial(batch_loss, label_smoothing=0.5)
    )
    targets = (batch.target != -100).sum()
    assert history.losses[0] == pytest.approx((smoothed / targets).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 1e-3, "steps": 6}, "between 1 and the 5 batches, not 6"),
        ({"lr": 1e-3, "steps": 0}, "between 1 and the 5 batches, not 0"),
        ({"lr": 1e-3, "clip": 0.0}, "clip must be a norm above 0, or None, not 0.0"),
        ({"lr": 1e-3, "clip": -1.0}, "clip must be a norm above 0, or None, not -1.0"),
        ({"lr": 1e-3, "max_loss": 0.0}, "max_loss must be above 0, or None, not 0.0"),
        ({"lr": 1e-3, "every": 0}, "every must be at least 1 step, not 0"),
        ({}, "lr=None and optimizer=None"),
    ],
)
def test_impossible_runs_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(small_model("encoder-decoder"), batches_for(), **options)


def test_a_rate_and_an_optimizer_together_are_refused() -> None:
    model = small_model("encoder-decoder")
    with pytest.raises(ValueError, match=r"either .* lr=0.1 and optimizer=AdamW"):
        fit(model, batches_for(), lr=0.1, optimizer=adamw(model, lr=0.1))


@pytest.mark.parametrize(
    ("progress", "shown"), [(None, False), (False, False), (True, True)]
)
def test_the_bar_shows_only_where_it_is_wanted(
    progress: bool | None, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(small_model("encoder-decoder"), batches_for(), lr=1e-3, progress=progress)
    output = capsys.readouterr()
    assert output.out == ""
    assert ("5/5" in output.err) == shown
    assert shown or output.err == ""


def test_an_empty_history_is_empty() -> None:
    assert History().tokens == History().losses == []


def test_packed_documents_have_the_loss_that_each_has_alone(tmp_path: Path) -> None:
    texts = ["0123", "9", "45678"]
    tokenizer = Tokenizer.from_texts(texts)
    pack(texts, tokenizer, tmp_path / "packed.npy")
    rows = PackedRows(tmp_path / "packed.npy", 16)
    model = small_model(vocab_size=tokenizer.vocab_size, position="learned")
    packed, count = batch_loss(model, packed_batch(rows[:], tokenizer))
    apart = [batch_loss(model, text_batch([text], tokenizer)) for text in texts]
    assert torch.allclose(packed, sum(total for total, _ in apart))
    assert count == sum(number for _, number in apart)
