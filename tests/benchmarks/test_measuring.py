"""What is timed, counted and weighed is what the rows say."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_shapes import SMALL, longer

from benchmarks import gpt2, training
from benchmarks.decoding import PROMPT, STATIC, Decoder, _compare, time_decoding
from benchmarks.limits import (
    bandwidth,
    bf16_is_native,
    matmul_peak,
    matrix_weights,
    step_operations,
)
from benchmarks.memory import peak_bytes
from benchmarks.peers import TORCH_NN, trainable
from benchmarks.shapes import SHAPES, config_of, random_batch
from benchmarks.timing import Samples, machine, quantile, race, ratio
from benchmarks.training import (
    EXPLICIT,
    MORE_WAYS,
    OURS,
    Setting,
    measure_memory,
    our_step,
    their_step,
    time_training,
)
from tfcourse.model.transformer import Transformer

QUICK = Setting(rounds=3)


def test_contenders_take_turns_and_each_begins_a_round_once() -> None:
    calls: list[str] = []

    def saying(name: str) -> Callable[[], None]:
        return lambda: calls.append(name)

    samples = race({name: saying(name) for name in "abc"}, rounds=3, warmup=1)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert rounds == ["cab", "abc", "bca", "cab"]
    assert all(len(s.wall) == len(s.cpu) == 3 for s in samples.values())


def test_three_rounds_are_made_when_the_time_is_over() -> None:
    samples = race({"a": lambda: None}, rounds=50, limit=0.0)
    assert len(samples["a"].wall) == 3
    with pytest.raises(ValueError, match="at least 3, not 2"):
        race({"a": lambda: None}, rounds=2)


def test_a_ratio_compares_what_ran_in_the_same_round() -> None:
    slow_then_fast = Samples(wall=[10.0, 1.0, 1.0], cpu=[1.0, 1.0, 1.0])
    other = Samples(wall=[20.0, 2.0, 4.0], cpu=[3.0, 3.0, 3.0])
    assert ratio(other, slow_then_fast) == 2
    assert ratio(other, slow_then_fast, "cpu") == 3


def test_quartiles_lie_between_the_values() -> None:
    assert [quantile([4.0, 1.0, 3.0, 2.0], p) for p in (0, 0.25, 0.5, 1)] == [
        *(1.0, 1.75, 2.5, 4.0)
    ]
    assert Samples([1.0, 2.0, 3.0], [5.0, 5.0, 9.0]).summary() == {
        "seconds": {"median": 2.0, "q1": 1.5, "q3": 2.5},
        "cpu_seconds": 5.0,
        "rounds": 3,
    }


def test_a_machine_can_be_written_down() -> None:
    found = machine("cpu")
    assert found["torch"] == torch.__version__
    assert json.loads(json.dumps(found)) == found


def test_both_steps_make_the_same_update() -> None:
    """The race is between equal works: same loss, clip, optimizer and rate."""
    shape = SMALL["decoder"]
    batch = random_batch(shape)
    theirs = TORCH_NN.build(shape)
    with torch.no_grad():
        ours = TORCH_NN.to_ours(theirs, shape)
    theirs.train()
    ours.train()
    our_step(ours, batch, QUICK)()
    # Ours decays matrices only, theirs all: at this rate and decay it is 1e-6.
    their_step(TORCH_NN, theirs, batch, QUICK)()
    with torch.no_grad():
        again = TORCH_NN.to_ours(theirs, shape)
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(
            ours.state_dict()[name], weight, atol=1e-5, rtol=1e-4, msg=name
        )


@pytest.mark.parametrize("family", list(SMALL))
def test_every_contender_of_a_family_is_timed(family: str) -> None:
    pytest.importorskip("x_transformers")
    rows = time_training(SMALL[family], QUICK)
    names = [row["contender"] for row in rows]
    assert {OURS, EXPLICIT, "torch.nn", "x-transformers"} <= set(names)
    for row in rows:
        assert row["seconds"]["q1"] <= row["seconds"]["median"] <= row["seconds"]["q3"]
        assert ("ratio" in row) == (row["contender"] != OURS)
        peer = not row["contender"].startswith(OURS)
        for column in MORE_WAYS.values():
            assert (column in row) == (peer and family != "decoder")
    for way in MORE_WAYS:
        assert (way in names) == (family != "decoder")
    assert {row["style"] for row in rows} >= {"biased", "plain"}


def test_the_same_call_needs_the_same_memory_each_time() -> None:
    def make() -> None:
        first = torch.ones(1000)
        del first
        second, third = torch.ones(2000), torch.ones(500)
        del second, third

    assert peak_bytes(make, "cpu") == peak_bytes(make, "cpu") == 4 * 2500


def test_memory_does_not_count_what_was_there_before_nor_a_view() -> None:
    weight = torch.ones(1000, 2, requires_grad=True)

    def make() -> None:
        (weight.T * 3).T[:10].sum().backward()
        weight.grad = None

    made = 8_000 + 8_000  # the gradients of the product and of the weight
    assert made <= peak_bytes(make, "cpu") < made + 100
    assert peak_bytes(lambda: weight[:5].T.detach(), "cpu") == 0


def test_memory_is_compared_with_ours_of_the_same_style() -> None:
    pytest.importorskip("x_transformers")
    rows = measure_memory(SMALL["encoder"], QUICK)
    ours = {r["style"]: r["peak_bytes"] for r in rows if r["contender"] == OURS}
    assert set(ours) == {"biased", "plain"}
    for row in rows:
        if row["contender"] != OURS:
            assert row["ratio"] == row["peak_bytes"] / ours[row["style"]]
    [torch_nn] = [row for row in rows if row["contender"] == "torch.nn"]
    for way, column in MORE_WAYS.items():
        less = {r["style"]: r["peak_bytes"] for r in rows if r["contender"] == way}
        assert all(less[style] < peak for style, peak in ours.items())
        assert torch_nn[column] == torch_nn["peak_bytes"] / less["biased"]


def test_all_ways_to_decode_write_the_same_tokens() -> None:
    pytest.importorskip("x_transformers")
    rows = time_decoding(longer(PROMPT + 4), QUICK, batch=2, new=4)
    names = {(row["contender"], row["style"]) for row in rows}
    assert {(STATIC, "biased"), (OURS, "plain"), ("HF GPT-2", "biased")} <= names
    assert all(row["tokens_per_second"] > 0 for row in rows)


def test_other_tokens_and_too_few_are_refused() -> None:
    tokens = torch.arange(4)[None]
    ours = Decoder(OURS, "plain", lambda: tokens)
    _compare([ours, Decoder("x", "biased", lambda: tokens + 1)], (1, 4))
    _compare([ours, replace(ours, run=lambda: tokens + 1, is_greedy=False)], (1, 4))
    with pytest.raises(ValueError, match="other tokens"):
        _compare([ours, Decoder("x", "plain", lambda: tokens + 1)], (1, 4))
    with pytest.raises(ValueError, match=r"x gave \(1, 3\), not \(1, 4\)"):
        _compare([Decoder("x", "plain", lambda: tokens[:, 1:])], (1, 4))


@pytest.mark.parametrize("shape", [SMALL["encoder"], SMALL["decoder"]])
def test_decoding_needs_a_decoder_with_room(shape) -> None:
    with pytest.raises(ValueError, match="room for 16"):
        time_decoding(shape, QUICK, batch=1, new=4)


def test_the_weights_that_are_multiplied_are_counted() -> None:
    shape = SMALL["decoder"]
    model = Transformer(config_of(shape, "biased"))
    block = 12 * shape.width**2
    assert matrix_weights(model) == 2 * block + shape.vocab * shape.width
    assert matrix_weights(model) < trainable(model)
    tokens = shape.batch * shape.length
    attention = 12 * shape.layers * shape.width * shape.length
    expected = tokens * (6 * matrix_weights(model) + attention)
    assert step_operations(model, shape) == expected
    with pytest.raises(ValueError, match="a decoder's"):
        step_operations(model, SMALL["encoder"])


def test_an_untied_head_is_counted_once() -> None:
    shape = SMALL["encoder-decoder"]
    tied, untied = (
        matrix_weights(Transformer(config_of(shape, style)))
        for style in ("biased", "plain")
    )
    assert tied == untied


def test_the_count_is_what_pytorch_counts_for_the_products() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    shape = SMALL["decoder"]
    model = Transformer(config_of(shape, "biased"))
    batch = random_batch(shape)
    with FlopCounterMode(display=False) as counter:
        model(batch.tokens).sum().backward()
    # It counts no fused attention on CPUs.
    attention = 12 * shape.layers * shape.width * shape.length
    tokens = shape.batch * shape.length
    counted = counter.get_total_flops()
    assert counted == step_operations(model, shape) - tokens * attention


def test_ceilings_are_measured() -> None:
    assert matmul_peak(torch.float32, "cpu", size=64, tries=2) > 0
    assert bandwidth("cpu", megabytes=1, tries=2) > 0
    assert bf16_is_native("cpu", least=0.0)
    assert not bf16_is_native("cpu", least=1e9)


def test_the_script_for_a_gpu_runs_in_a_tiny_shape() -> None:
    shape = replace(SMALL["decoder"], length=40)
    effort = gpt2.Effort(matrix=64, megabytes=1, rounds=3, new=4)
    limits, mfu, eager = gpt2.measure(shape, Setting(rounds=3), effort)
    assert limits["matmul_per_second"] > 0
    assert mfu["model_flops_utilisation"] > 0
    assert mfu["peak_bytes"] > 0
    assert (eager["how"], eager["rounds"]) == ("eager", 3)
    assert eager["bandwidth_utilisation"] > 0


def test_a_written_token_is_the_likeliest_after_the_one_before() -> None:
    shape = replace(SMALL["decoder"], length=40)
    model = Transformer(config_of(shape, "biased")).eval()
    called: list[int] = []

    def counting(*arguments, **options):
        called.append(1)
        return model(*arguments, **options)

    writer = gpt2._writer(counting, model, QUICK, gpt2.PROMPT + 5)
    first, second = writer().clone(), writer().clone()
    assert len(called) == 10
    assert torch.equal(first, second)  # the loop begins where it began before


def test_what_would_run_on_a_gpu_is_gpt2() -> None:
    assert str(gpt2.GPT2) in gpt2.plan()
    with torch.device("meta"):
        config = config_of(replace(gpt2.GPT2, vocab=50_257), "biased")
        assert trainable(Transformer(config)) == 124_439_808


def test_the_shapes_are_those_that_were_agreed_on() -> None:
    titles = [str(shape) for shape in SHAPES.values()]
    assert titles == [
        "decoder, d 384, 6 layers, T 256, batch 8",
        "decoder, d 128, 2 layers, T 32, batch 64",
        "encoder-decoder, d 128, 4+4 layers, T 32, batch 64",
        "encoder, d 256, 4 layers, T 128, batch 16",
    ]


def test_a_row_says_how_it_was_measured() -> None:
    contender = training.Contender(OURS, "plain", 5, lambda: None)
    row = training.describe("train", SMALL["decoder"], Setting("bf16", True), contender)
    assert (row["precision"], row["mode"], row["parameters"]) == ("bf16", "compiled", 5)
