"""Each fault of the zoo trips the checks it declares, no others, and is undone."""

import math
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from small_models import no_shape_checks
from torch import Tensor

from tfcourse.course import battery
from tfcourse.course.battery import BERT, GPT, LLAMA, SOURCE, T5, TOKENS, VASWANI
from tfcourse.course.reference import Reference
from tfcourse.course.zoo import ZOO, Fault, diagnose
from tfcourse.data.pairs import IGNORE, Batch, text_batch
from tfcourse.data.tasks import reverse
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.model import layers
from tfcourse.model.attention import record_attention
from tfcourse.model.cache import KVCache
from tfcourse.model.transformer import Transformer
from tfcourse.training.loop import fit

FAMILIES = {"2017": VASWANI, "GPT": GPT, "BERT": BERT, "Llama": LLAMA, "T5": T5}


def run(name: str, model: Transformer | None = None) -> Tensor:
    config = FAMILIES[name]
    model = battery.standard_model(config) if model is None else model
    is_crossed = config.num_encoder_layers and config.num_decoder_layers
    with torch.no_grad():
        return model(TOKENS, *([SOURCE] if is_crossed else []))


def package() -> dict[str, Any]:
    """Return all that a fault may replace: names of modules, and of their classes."""
    found: dict[str, Any] = {"activations": dict(layers.ACTIVATIONS)}
    for module, owner in sys.modules.items():
        if not module.startswith("tfcourse") or not isinstance(owner, ModuleType):
            continue
        found[module] = dict(vars(owner))
        for name, value in vars(owner).items():
            if isinstance(value, type):
                found[f"{module}.{name}"] = dict(vars(value))
    found["Tensor"] = dict(vars(Tensor))
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    assert before.keys() == after.keys()
    return [
        f"{owner}.{name}"
        for owner in before
        for name in before[owner].keys() | after[owner].keys()
        if before[owner].get(name, ZOO) is not after[owner].get(name, ZOO)
    ]


def test_the_healthy_package_trips_nothing() -> None:
    assert diagnose(None) == {}


@pytest.mark.parametrize("fault", ZOO.values(), ids=ZOO)
def test_a_fault_trips_exactly_what_it_declares(fault: Fault) -> None:
    with no_shape_checks():  # they would take most of the time; see the shapes below
        messages = diagnose(fault)
    assert tuple(messages) == fault.probes
    assert all(messages.values())


def test_there_are_many_faults_and_each_check_is_tripped_by_one() -> None:
    assert len(ZOO) >= 26
    tripped = {name for fault in ZOO.values() for name in fault.probes}
    assert tripped == set(battery.battery())


def test_faults_are_named_and_described() -> None:
    for name, fault in ZOO.items():
        assert fault.name == name == fault.patch.__name__
        assert fault.symptom.endswith(".")
        assert fault.patch.__doc__
        assert fault.probes
    assert len({fault.symptom for fault in ZOO.values()}) > 26


@pytest.mark.parametrize("fault", ZOO.values(), ids=ZOO)
def test_a_fault_is_there_within_its_block_only(fault: Fault) -> None:
    before = package()
    with fault.patch():
        assert changed(before, package())
    assert changed(before, package()) == []
    with pytest.raises(KeyError), fault.patch():
        raise KeyError
    assert changed(before, package()) == []


@pytest.mark.parametrize("fault", ZOO.values(), ids=ZOO)
def test_shapes_show_nothing(fault: Fault) -> None:
    """Those within the model neither, which are checked at each call in tests."""
    with fault.patch():
        for name, config in FAMILIES.items():
            logits = run(name)
            assert logits.shape == (*TOKENS.shape, config.vocab_size)
            assert logits.isfinite().all()


def test_faults_within_faults_are_undone_in_turn() -> None:
    before = package()
    with ZOO["positions_start_again"].patch(), ZOO["final_norm_forgotten"].patch():
        run("GPT")
    assert changed(before, package()) == []


def test_a_fault_that_stops_the_program_is_no_message() -> None:
    def stops() -> Any:
        raise KeyError

    with pytest.raises(KeyError):
        diagnose(Fault("stops", "It stops.", (), stops))


# ------------------------------------------- what a symptom says is as ever, is as ever


def plain(name: str) -> Callable[[], Tensor]:
    return lambda: run(name)


def first_loss_of_a_new_model() -> Tensor:
    torch.manual_seed(0)
    return run("GPT", Transformer(GPT).eval())


def in_training() -> Tensor:
    return run("GPT", battery.standard_model(GPT).train())


def after_the_prompt() -> Tensor:
    model = battery.standard_model(GPT)
    return model(TOKENS, cache=KVCache())


def recorded() -> Tensor:
    model = battery.standard_model(GPT)
    with record_attention(model):
        return run("GPT", model)


AS_EVER = {
    "mask_inverted": plain("GPT"),
    "causal_only_in_training": in_training,
    "cross_mask_dropped": plain("2017"),
    "documents_not_separated": plain("GPT"),
    "softmax_over_queries": recorded,
    "recording_forgets_bias": plain("T5"),
    "given_positions_ignored": plain("GPT"),
    "positions_start_again": after_the_prompt,
    "segments_ignored": plain("BERT"),
    "head_is_a_copy": first_loss_of_a_new_model,
    "mask_offset_lost": after_the_prompt,
    "static_cache_shows_empty_slots": plain("Llama"),
    "cache_swaps_keys_and_values": after_the_prompt,
    "beams_not_reordered": plain("2017"),
}


@pytest.mark.parametrize("name", AS_EVER)
def test_what_is_said_to_be_as_ever_is(name: str) -> None:
    healthy = AS_EVER[name]()
    with ZOO[name].patch():
        assert torch.equal(AS_EVER[name](), healthy)


def test_the_tanh_form_of_gelu_is_off_by_a_thousandth_or_so() -> None:
    healthy = run("GPT")
    with ZOO["exact_gelu"].patch():
        assert 1e-4 < (run("GPT") - healthy).abs().max() < 1e-2


def trained(fault: str | None, batches: list[Batch], **layer_counts: int) -> float:
    """Return the mean loss of the last ten steps."""
    config = replace(
        VASWANI, d_model=32, num_heads=4, d_ff=64, norm_order="pre", **layer_counts
    )
    with ZOO[fault].patch() if fault else nullcontext():
        torch.manual_seed(0)
        losses = fit(Transformer(config), batches, lr=3e-3, progress=False).losses
    return sum(losses[-10:]) / 10


DECODER = {"num_encoder_layers": 0, "num_decoder_layers": 2}


def random_texts(count: int) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(12, (64, 9), generator=draw) for _ in range(count)]
    return [Batch(text[:, :-1], text[:, 1:]) for text in texts]


@pytest.mark.parametrize(
    "fault",
    [
        "mask_after_softmax",
        "softmax_over_queries",
        "heads_cut_across_positions",
        "norm_over_sequence",
    ],
)
def test_what_looks_ahead_foretells_random_tokens(fault: str) -> None:
    with no_shape_checks():
        assert trained(fault, random_texts(200), **DECODER) < math.log(12) - 0.2


def test_a_right_model_does_not() -> None:
    with no_shape_checks():
        assert trained(None, random_texts(60), **DECODER) > math.log(12) - 0.05


def test_without_residuals_or_with_late_norms_depth_is_the_matter() -> None:
    draw = torch.Generator().manual_seed(0)
    batches = [reverse(64, length=8, symbols=12, generator=draw) for _ in range(300)]
    with no_shape_checks():
        for depth, fault, low, high in (
            (1, None, 0, 0.3),
            (6, None, 0, 0.3),
            (1, "residual_left_out", 0, 0.3),
            (6, "residual_left_out", 1, 3),
            (1, "norm_after_addition", 0, 0.3),
            (6, "norm_after_addition", 1, 3),
        ):
            counts = {"num_encoder_layers": depth, "num_decoder_layers": 0}
            assert low <= trained(fault, batches, **counts) < high, (depth, fault)


def test_unshifted_targets_are_the_tokens_and_twice_shifted_ones_skip_one() -> None:
    tokenizer = Tokenizer.from_texts(["12345"])
    right = text_batch(["12345", "31"], tokenizer)
    with ZOO["targets_not_shifted"].patch():
        same = text_batch(["12345", "31"], tokenizer)
    with ZOO["targets_shifted_twice"].patch():
        skipped = text_batch(["12345", "31"], tokenizer)
    asked = right.target != IGNORE
    assert torch.equal(same.target[asked], right.tokens[asked])
    assert torch.equal(skipped.target[0, :4], right.tokens[0, 2:])
    assert (skipped.target != IGNORE).sum() == asked.sum() - 2


# ----------------------------------------------------------------------------- battery


def test_the_standard_models_leave_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    first, second = (battery.standard_model(GPT).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, weight in first.items():
        assert torch.equal(weight, second[name])
        assert not (weight == 0).any()
        assert not (weight == 1).any()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_reference_depends_on_every_weight(name: str) -> None:
    """A weight that it did not read could be anything in ours."""
    config, is_formula = FAMILIES[name], name in ("Llama", "T5")
    weights = battery.standard_model(config).state_dict()
    segment = battery.SEGMENT if name == "BERT" else None

    def logits() -> Tensor:
        reference = Reference(config, weights)
        if is_formula:
            source = SOURCE if name == "T5" else None
            return reference.by_formula(TOKENS, source)
        source = SOURCE if name == "2017" else None
        return reference.by_torch(TOKENS, source, segment)

    with torch.no_grad():
        before = logits()
        for key, weight in weights.items():
            kept = weight.clone()
            weight.mul_(1.5)
            if "project_in.bias" in key:  # the keys' bias cancels in the softmax
                assert not torch.allclose(logits(), before)
            else:
                assert not torch.allclose(logits(), before, atol=1e-5), key
            weight.copy_(kept)
