"""What the whole model promises: causality, padding, order, cache, devices, errors."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import (
    FAMILIES,
    POSITIONS,
    EverythingOn,
    counted,
    memory_for,
    no_shape_checks,
    small_config,
    small_model,
    some_tokens,
    source_for,
)
from torch import Tensor, nn
from torch.func import functional_call

from tfcourse.model.attention import record_attention
from tfcourse.model.cache import KVCache
from tfcourse.model.masks import padding, same_document, sliding_window
from tfcourse.model.positions import sinusoids
from tfcourse.model.transformer import Stack, Transformer
from tfcourse.probes import (
    assert_cache_equals_full,
    assert_causal,
    assert_matches_reference,
    assert_padding_invariant,
    assert_permutation_equivariant,
)

DECODERS = ("decoder", "encoder-decoder")
EXACT = {"atol": 1e-10, "rtol": 1e-10}  # for float64


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_the_model_is_its_parts_in_a_row(family: str, scaled: bool, tied: bool) -> None:
    model = small_model(family, scale_embedding=scaled, tie_embeddings=tied)
    tokens, given = some_tokens(), source_for(model)

    def embedded(ids: Tensor) -> Tensor:
        factor = 8**0.5 if scaled else 1.0
        table = sinusoids(torch.arange(ids.shape[1]), 8)
        return F.embedding(ids, model.embedding.weight) * factor + table

    def through(stack: Stack, ids: Tensor, memory: Tensor | None = None) -> Tensor:
        x, own = embedded(ids), {"is_causal": stack is model.decoder}
        for block in stack.blocks:
            x = block(x, memory, own=own)
        return stack.last_norm(x)

    def parts() -> Tensor:
        memory = through(model.encoder, given["source"]) if given else None
        hidden = through(model.decoder or model.encoder, tokens, memory)
        head = model.embedding if tied else model.unembedding
        return hidden @ head.weight.T

    assert_matches_reference(lambda: model(tokens, **given), parts)
    assert (model.unembedding is None) == tied


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("recording", [False, True], ids=["kernel", "equation"])
def test_no_output_depends_on_a_later_token(
    family: str, position: str, train: bool, recording: bool
) -> None:
    model = small_model(family, position=position, dropout=0.2)
    given = memory_for(model, batch=2)

    model.train(train)

    def run(tokens: Tensor) -> Tensor:
        if not recording:
            return model(tokens, **given)
        with record_attention(model):
            return model(tokens, **given)

    assert_causal(run, some_tokens(batch=2))


def test_an_added_mask_leaves_the_decoder_causal() -> None:
    model = small_model()
    everything = padding(torch.ones(3, 7, dtype=torch.bool))
    assert_causal(lambda tokens: model(tokens, mask=everything), some_tokens())


def test_an_encoder_sees_ahead() -> None:
    model = small_model("encoder")
    with pytest.raises(AssertionError, match="looks ahead"):
        assert_causal(model, some_tokens())


def test_a_window_limits_what_is_seen() -> None:
    model = small_model(num_decoder_layers=1)
    tokens = some_tokens(batch=1)
    changed = tokens.clone()
    changed[0, 1] = (tokens[0, 1] + 1) % 11

    def run(ids: Tensor) -> Tensor:
        return model(ids, mask=sliding_window(2))[0]

    same = (run(tokens) - run(changed)).abs().amax(-1) < 1e-6
    assert same.tolist() == [True, False, False, True, True, True, True]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(family: str, position: str, side: str) -> None:
    model = small_model(family, position=position)
    given = memory_for(model, batch=1)

    def run(tokens: Tensor, valid: Tensor) -> Tensor:
        more = {name: part.expand(len(tokens), -1, -1) for name, part in given.items()}
        mask, position = padding(valid), counted(valid)
        return model(tokens, mask=mask, position=position, **more)

    assert_padding_invariant(run, some_tokens(), side=side)
    assert_padding_invariant(run, some_tokens(), side=side, pad=0)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_of_the_source_changes_nothing(position: str, side: str) -> None:
    model = small_model("encoder-decoder", position=position)
    target = some_tokens(batch=1, seq=4)

    def run(source: Tensor, valid: Tensor) -> Tensor:
        mask = padding(valid)
        memory = model.encode(source, source_mask=mask, position=counted(valid))
        tokens = target.expand(len(source), -1)
        return model(tokens, memory=memory, source_mask=mask)

    assert_padding_invariant(run, some_tokens(), side=side, per_token=False)


def test_the_memory_may_have_a_mask_of_its_own() -> None:
    model = small_model("encoder-decoder")
    tokens, source = some_tokens(), some_tokens(seq=5)
    some, fewer = (torch.arange(5).expand(3, 5) < count for count in (4, 2))
    position = torch.arange(3, 8).expand(3, 5)
    memory = model.encode(source, padding(some), position)
    assert_matches_reference(
        lambda: model(
            tokens,
            source,
            source_mask=padding(some),
            memory_mask=padding(fewer),
            source_position=position,
        ),
        lambda: model(tokens, memory=memory, source_mask=padding(fewer)),
    )


def test_source_and_memory_are_two_ways_to_the_same() -> None:
    model = small_model("encoder-decoder")
    tokens, source = some_tokens(), some_tokens(seq=5)
    mask = padding(torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 5]))
    memory = model.encode(source, source_mask=mask)
    assert_matches_reference(
        lambda: model(tokens, source, source_mask=mask),
        lambda: model(tokens, memory=memory, source_mask=mask),
    )
    with pytest.raises(AssertionError, match="elements differ"):
        assert_matches_reference(
            lambda: model(tokens, source, source_mask=mask),
            lambda: model(tokens, memory=memory),
        )


@pytest.mark.parametrize("position", POSITIONS)
def test_only_positions_tell_an_encoder_the_order(position: str) -> None:
    model = small_model("encoder", position=position)
    if position == "none":
        assert_permutation_equivariant(model, some_tokens())
    else:
        with pytest.raises(AssertionError, match="sees the order"):
            assert_permutation_equivariant(model, some_tokens())


@pytest.mark.parametrize("position", POSITIONS)
def test_tokens_shuffled_with_their_positions_change_nothing(position: str) -> None:
    model = small_model("encoder", position=position)
    place = torch.arange(7).expand(3, -1)

    def run(pairs: Tensor) -> Tensor:
        return model(pairs[..., 0], position=pairs[..., 1])

    assert_permutation_equivariant(run, torch.stack((some_tokens(), place), dim=-1))


def test_the_causal_mask_alone_tells_a_decoder_the_order() -> None:
    model = small_model(position="none")
    with pytest.raises(AssertionError, match="sees the order"):
        assert_permutation_equivariant(model, some_tokens())


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("masked", [False, True], ids=["open", "masked"])
def test_a_cache_changes_nothing(family: str, position: str, masked: bool) -> None:
    model = small_model(family, position=position, dtype=torch.float64, num_kv_heads=1)
    given = memory_for(model)
    valid = torch.ones(3, 7, dtype=torch.bool)
    valid[0, :2] = valid[1, 4] = False

    def run(tokens: Tensor, cache: KVCache | None) -> Tensor:
        read = tokens.shape[1] + (0 if cache is None else cache.length)
        mask = padding(valid[:, :read]) if masked else None
        return model(tokens, cache=cache, mask=mask, **given)

    assert_cache_equals_full(run, some_tokens(), **EXACT)


def asked(layer: nn.Module, name: str) -> list[Any]:
    """Return a list that will hold what each call of the layer was given as `name`."""
    seen: list[Any] = []
    layer.register_forward_pre_hook(
        lambda _, args, named: seen.append(named.get(name)), with_kwargs=True
    )
    return seen


def test_a_single_cached_token_needs_no_mask() -> None:
    """A mask of nothing but True would only keep the fast kernel from being used."""
    model, cache = small_model(), KVCache()
    masks = asked(model.decoder.blocks[0].self_attention, "mask")
    for piece in some_tokens().split([3, 1, 2, 1], dim=1):
        model(piece, cache=cache)
    assert [mask is None for mask in masks] == [True, True, False, True]
    model(some_tokens(seq=1), cache=KVCache(), mask=padding(torch.zeros(3, 1) > 0))
    assert masks[-1] is not None


def test_the_memory_is_projected_once_for_all_cached_tokens() -> None:
    model, cache = small_model("encoder-decoder", num_decoder_layers=1), KVCache()
    layer, calls = model.decoder.blocks[0].cross_attention, []
    project = layer._project_memory

    def counted_call(memory: Tensor) -> Any:
        calls.append(memory)
        return project(memory)

    layer._project_memory = counted_call
    memory = memory_for(model)
    for token in some_tokens().split(1, dim=1):
        model(token, cache=cache, **memory)
    assert len(calls) == 1


def test_a_rule_may_treat_heads_unlike() -> None:
    model = small_model()

    def second_head_sees_itself(
        batch: Tensor, head: Tensor, query: Tensor, key: Tensor
    ) -> Tensor:
        return (head == 0) | (key == query)

    with record_attention(model) as weights:
        model(some_tokens(), mask=second_head_sees_itself)
    for weight in weights.values():
        assert torch.equal(weight[:, 1], torch.eye(7).expand(3, -1, -1))
        assert (weight[:, 0, 1:, 0] > 0).all()


def test_one_encoder_layer_is_enough_to_be_attended_to() -> None:
    model = small_model("encoder-decoder", num_encoder_layers=1)
    assert model.decoder.blocks[0].cross_attention is not None


def test_packed_documents_are_read_as_if_apart() -> None:
    model = small_model(dtype=torch.float64)
    first, second = some_tokens(1, 4), some_tokens(1, 3)
    packed = model(
        torch.cat((first, second), dim=1),
        mask=same_document(torch.tensor([[0, 0, 0, 0, 1, 1, 1]])),
        position=torch.tensor([[0, 1, 2, 3, 0, 1, 2]]),
    )
    apart = torch.cat((model(first), model(second)), dim=1)
    assert torch.allclose(packed, apart)


@pytest.mark.parametrize("recording", [False, True], ids=["kernel", "equation"])
def test_the_gradient_of_every_weight_is_right(recording: bool) -> None:
    model = small_model(
        "encoder-decoder",
        dtype=torch.float64,
        activation="gelu",  # has a derivative everywhere
        position="learned",
        tie_embeddings=False,
        vocab_size=5,
    )
    tokens, source = some_tokens(2, 3, 5), some_tokens(2, 4, 5)
    mask = padding(torch.tensor([[True] * 4, [True, True, False, False]]))
    onto = torch.randn(2, 3, 5, dtype=torch.float64)  # a sum alone may have no gradient
    weights = dict(model.named_parameters())
    ways = {name: torch.randn_like(part) for name, part in weights.items()}

    def run(step: Tensor) -> Tensor:
        """Return the loss after a step of all weights in random directions."""
        moved = {name: part + step * ways[name] for name, part in weights.items()}
        more = {"source": source, "source_mask": mask}
        return (functional_call(model, moved, (tokens,), more) * onto).sum()

    def check() -> bool:
        step = torch.zeros((), dtype=torch.float64, requires_grad=True)
        return torch.autograd.gradcheck(run, step)

    if recording:
        with record_attention(model):
            assert check()
    else:
        assert check()


@pytest.mark.parametrize(
    ("family", "position"),
    [
        *(("encoder-decoder", name) for name in POSITIONS),
        *((name, "rotary") for name in ("encoder", "decoder")),
    ],
)
@pytest.mark.parametrize("recording", [False, True], ids=["kernel", "equation"])
def test_every_tensor_is_made_on_the_models_device(
    family: str, position: str, recording: bool
) -> None:
    """Without a GPU: `meta` is another device than the one tensors are made on."""
    layers = dict.fromkeys(FAMILIES[family], 1)
    model = small_model(family, position=position, dropout=0.1, train=True, **layers)
    model.to("meta")
    tokens = some_tokens().to("meta")
    valid = torch.ones(3, 7, dtype=torch.bool, device="meta")
    given: dict[str, Any] = {}
    if model.encoder is not None and model.decoder is not None:
        given = {"source": tokens[:, :5], "source_mask": padding(valid[:, :5])}
    with EverythingOn("meta"), record_attention(model) if recording else nullcontext():
        for mask in (None, padding(valid)):
            logits = model(tokens, mask=mask, **given)
        F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
        if model.decoder is not None:
            cache = KVCache()
            model(tokens[:, :3], cache=cache, **given)
            model(tokens[:, 3:], cache=cache, **given)
    assert logits.shape == (3, 7, 11)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_models_number_format_is_kept(
    family: str, position: str, dtype: torch.dtype
) -> None:
    model = small_model(family, position=position)
    tokens, given = some_tokens(), source_for(model)
    expected = model(tokens, **given)
    model = model.to(dtype)
    found = model(tokens, **given)
    assert found.dtype == dtype
    if model.decoder is not None:
        assert model(tokens, cache=KVCache(), **given).dtype == dtype
    with record_attention(model) as weights:
        assert model(tokens, **given).dtype == dtype
    assert {weight.dtype for weight in weights.values()} == {dtype}
    coarse = 0.05 if dtype == torch.bfloat16 else 1e-5
    assert (found - expected).norm() < coarse * expected.norm()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("position", POSITIONS)
def test_mixed_precision_needs_no_help(family: str, position: str) -> None:
    model = small_model(family, position=position)
    tokens, given = some_tokens(), source_for(model)
    expected = model(tokens, **given)
    with torch.autocast("cpu", torch.bfloat16):
        fast = model(tokens, **given)
        with record_attention(model):
            slow = model(tokens, **given)
        if model.decoder is not None:
            cache = KVCache()
            model(tokens, cache=cache, **given)
            kept = [part.dtype for layer in cache.layers for part in layer.own]
            assert set(kept) == {torch.bfloat16}  # half the memory
        fast.float().square().mean().backward()
    for found in (fast, slow):
        assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_weights_give_the_same_model(family: str) -> None:
    first, second = (small_model(family, norm="rms", gated=True) for _ in range(2))
    tokens, given = some_tokens(), source_for(first)
    assert not torch.allclose(first(tokens, **given), second(tokens, **given))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(tokens, **given), second(tokens, **given))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_gets_a_gradient(family: str) -> None:
    model = small_model(family, position="learned", gated=True, tie_embeddings=False)
    logits = model(some_tokens(), **source_for(model))
    (logits * torch.randn_like(logits)).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_weights_are_the_configs_business_alone() -> None:
    names = dict(small_model("decoder", bias=False).named_parameters())
    assert not [name for name in names if name.endswith("bias")]
    assert not [name for name in names if "cross" in name or "encoder." in name[:8]]
    counted = sum(part.numel() for part in small_model().parameters())
    attention, network, norms = 4 * (64 + 8), 2 * 96 + 12 + 8, 5 * 16
    assert counted == 88 + 2 * (attention + network) + norms


# ---------------------------------------------------------- what BERT and T5 need more


@pytest.mark.parametrize("family", ["encoder", "decoder"])
def test_a_segment_adds_its_vector_to_a_token(family: str) -> None:
    model = small_model(family, num_segments=3)
    tokens = some_tokens()
    segment = torch.tensor([[0, 0, 1, 1, 2, 2, 2]]).expand(3, -1)
    found = model(tokens, segment=segment)
    assert torch.equal(found, model(tokens, segment=segment[:1]))
    assert torch.equal(model(tokens), model(tokens, segment=torch.zeros_like(tokens)))
    vectors = model.embedding(tokens) * 8**0.5 + model.segments.weight[segment]
    stack = model.encoder or model.decoder
    assert_matches_reference(lambda: found, lambda: model.head(stack(vectors)))
    assert not torch.allclose(found, model(tokens), atol=1e-3)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_an_embedding_norm_comes_after_the_positions(kind: str) -> None:
    model = small_model(embedding_norm=True, norm=kind, norm_order="post")
    x = torch.randn(2, 3, 8)
    assert model.decoder.first_norm.weight.shape == (8,)
    first = model.decoder.first_norm(x + sinusoids(torch.arange(3), 8))
    plain = small_model(norm=kind, norm_order="post", position="none").decoder
    plain.load_state_dict(model.decoder.state_dict(), strict=False)
    assert_matches_reference(lambda: model.decoder(x), lambda: plain(first))


def test_the_mlm_head_is_a_layer_below_the_logits() -> None:
    model = small_model("encoder", head="mlm", head_bias=True, activation="gelu")
    hidden = torch.randn(2, 3, 8)
    linear, _, norm = model.head_transform
    wide = F.layer_norm(
        F.gelu(F.linear(hidden, linear.weight, linear.bias)),
        (8,),
        norm.weight,
        norm.bias,
    )
    expected = wide @ model.embedding.weight.T + model.head_bias
    assert_matches_reference(lambda: model.head(hidden), lambda: expected)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_can_be_scaled_and_have_a_bias(tied: bool) -> None:
    model = small_model(scale_logits=True, head_bias=True, tie_embeddings=tied)
    hidden = torch.randn(2, 3, 8)
    matrix = (model.embedding if tied else model.unembedding).weight
    expected = hidden @ matrix.T / 8**0.5 + model.head_bias
    assert_matches_reference(lambda: model.head(hidden), lambda: expected)
    assert Transformer(small_config(head_bias=True)).head_bias.abs().max() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_come_of_all_tokens_of_the_last_or_not_at_all(family: str) -> None:
    model = small_model(family, dtype=torch.float64)
    tokens, given = some_tokens(), source_for(model)
    logits, last, hidden = (
        model(tokens, **given, output=output) for output in ("logits", "last", "hidden")
    )
    assert hidden.shape == (3, 7, 8)
    assert torch.allclose(model.head(hidden), logits)
    assert torch.allclose(last, logits[:, -1:])


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("position", ["relative", "alibi"])
def test_decoder_and_encoder_have_a_bias_of_their_own(
    family: str, position: str
) -> None:
    model = small_model(family, position=position)
    with record_attention(model) as weights:
        model(some_tokens(), **source_for(model))
    names = {name for name in weights if name.endswith("self_attention")}
    for name in names:
        future = weights[name].triu(1).abs().max()
        assert (future > 0) == name.startswith("encoder")
    if model.encoder is not None and position == "relative":
        tables = model.encoder.positions.table, model.decoder.positions.table
        assert tables[0].weight.shape == tables[1].weight.shape
        assert not torch.equal(tables[0].weight, tables[1].weight)


def test_a_bias_reaches_self_attention_alone() -> None:
    """T5 has none in cross-attention (Raffel et al. 2020)."""
    model = small_model("encoder-decoder", position="alibi", num_decoder_layers=1)
    tokens, memory = some_tokens(), memory_for(model)
    layer = model.decoder.blocks[0]
    asked = []
    for part in (layer.self_attention, layer.cross_attention):
        part.register_forward_pre_hook(
            lambda _, args, named: asked.append(named.get("bias")), with_kwargs=True
        )
    model(tokens, **memory)
    own, cross = asked
    assert own.shape == (1, 2, 7, 7)
    assert cross is None


TOKENS = torch.zeros(2, 4, dtype=torch.long)
ONE = torch.eye(2, 4, dtype=torch.long)  # at two places: the rest is in range
WANTED = r"^tokens must be int64 or int32 \[batch, seq\] with at least one token, not"
MEMORY = torch.zeros(2, 5, 8)
VALID = torch.ones(2, 4, dtype=torch.bool)
SOURCE = {"source": torch.zeros(2, 5, dtype=torch.long)}
Refusal = tuple[str, Tensor, dict[str, Any], str]

REFUSALS: dict[str, Refusal] = {
    "too long": ("decoder", TOKENS.repeat(1, 5), {}, "20 tokens .* max_seq_len=16"),
    "id too large": (
        "decoder",
        TOKENS + 11 * ONE,
        {},
        r"token id 11 is outside 0 \.\.\. 10",
    ),
    "id negative": (
        "decoder",
        TOKENS + 1 - 2 * ONE,
        {},
        r"token id -1 is outside 0 \.\.\. 10",
    ),
    "floats": (
        "decoder",
        TOKENS.float(),
        {},
        rf"{WANTED} torch\.float32 of shape \(2, 4\)",
    ),
    "booleans": ("decoder", VALID, {}, r"torch\.bool of shape \(2, 4\)"),
    "bytes": ("decoder", TOKENS.byte(), {}, r"torch\.uint8 of shape \(2, 4\)"),
    "no batch axis": ("decoder", TOKENS[0], {}, r"shape \(4,\)"),
    "no tokens": ("decoder", TOKENS[:, :0], {}, r"shape \(2, 0\)"),
    "no rows": ("decoder", TOKENS[:0], {}, r"shape \(0, 4\)"),
    "positions of another shape": (
        "decoder",
        TOKENS,
        {"position": TOKENS[:, :3]},
        r"positions \(2, 3\) do not match tokens \(2, 4\)",
    ),
    "position too large": (
        "decoder",
        TOKENS,
        {"position": TOKENS + 16 * ONE},
        r"position 16 is outside 0 \.\.\. 15",
    ),
    "position negative": (
        "encoder",
        TOKENS,
        {"position": TOKENS + 1 - 3 * ONE},
        r"position -2 is outside 0 \.\.\. 15",
    ),
    "segment too large": (
        "decoder",
        TOKENS,
        {"segment": TOKENS + 2 * ONE},
        r"segment 2 is outside 0 \.\.\. 1",
    ),
    "segments of another shape": (
        "decoder",
        TOKENS,
        {"segment": TOKENS[:, :3]},
        r"segments \(2, 3\) do not match tokens \(2, 4\)",
    ),
    "segments where there are none": (
        "encoder-decoder",
        TOKENS,
        {**SOURCE, "segment": TOKENS},
        "^num_segments=0: this model takes no segments$",
    ),
    "an unknown output": (
        "decoder",
        TOKENS,
        {"output": "probabilities"},
        "one of logits, last, hidden, not 'probabilities'",
    ),
    "mask with more rows": (
        "decoder",
        TOKENS,
        {"mask": padding(VALID.repeat(2, 1))},
        r"padding mask.*\(4, 4\).*2 rows and 4 keys",
    ),
    "mask with fewer keys": (
        "encoder",
        TOKENS,
        {"mask": padding(VALID[:, :3])},
        r"padding mask.*\(2, 3\).*2 rows and 4 keys",
    ),
    "source mask of the target": (
        "encoder-decoder",
        TOKENS,
        {**SOURCE, "source_mask": padding(VALID)},
        r"padding mask.*\(2, 4\).*2 rows and 5 keys",
    ),
    "rows of the source": (
        "encoder-decoder",
        TOKENS,
        {"source": TOKENS[:1]},
        "2 rows of tokens, but 1 of source",
    ),
    "rows of the memory": (
        "encoder-decoder",
        TOKENS,
        {"memory": MEMORY[:1]},
        "2 rows of tokens, but 1 of source",
    ),
    "no source": ("encoder-decoder", TOKENS, {}, "either .* but 0 of the two"),
    "source and memory": (
        "encoder-decoder",
        TOKENS,
        {**SOURCE, "memory": MEMORY},
        "either .* but 2 of the two",
    ),
    "source for a decoder": (
        "decoder",
        TOKENS,
        SOURCE,
        "num_encoder_layers=0 and num_decoder_layers=2: only",
    ),
    "memory for an encoder": (
        "encoder",
        TOKENS,
        {"memory": MEMORY},
        "num_encoder_layers=2 and num_decoder_layers=0: only",
    ),
    "source mask without a source": (
        "encoder",
        TOKENS,
        {"source_mask": padding(VALID)},
        "takes a source, its masks or its positions",
    ),
    "memory mask without a memory": (
        "decoder",
        TOKENS,
        {"memory_mask": padding(VALID)},
        "takes a source, its masks or its positions",
    ),
    "source positions without a source": (
        "decoder",
        TOKENS,
        {"source_position": TOKENS},
        "takes a source, its masks or its positions",
    ),
    "cache for an encoder": (
        "encoder",
        TOKENS,
        {"cache": KVCache()},
        "^an encoder sees all tokens at once: it takes no cache$",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_meant_is_refused(what: str) -> None:
    family, tokens, given, message = REFUSALS[what]
    model = small_model(family, num_segments=2 if family == "decoder" else 0)
    with no_shape_checks(), pytest.raises(ValueError, match=message):
        model(tokens, **given)


def test_a_decoder_does_not_encode() -> None:
    message = "^this model has num_encoder_layers=0: nothing encodes$"
    with pytest.raises(ValueError, match=message):
        small_model("decoder").encode(TOKENS)


def test_what_the_cache_has_read_counts_towards_the_length() -> None:
    model, cache = small_model(), KVCache()
    model(some_tokens(seq=14), cache=cache)
    with pytest.raises(ValueError, match="17 tokens are more than max_seq_len=16"):
        model(some_tokens(seq=3), cache=cache)
    model(some_tokens(seq=2), cache=cache)
    assert cache.length == 16


@pytest.mark.parametrize("convert", [Tensor.long, Tensor.int])
def test_both_integer_widths_are_tokens(convert: Callable[[Tensor], Tensor]) -> None:
    model, tokens = small_model(), some_tokens()
    assert torch.equal(model(convert(tokens)), model(tokens))


def test_options_change_what_is_computed() -> None:
    """Each option, alone, gives other logits from the same weights."""
    tokens, state = some_tokens(), small_model().state_dict()

    def logits(**options: Any) -> Tensor:
        model = Transformer(small_config(**options)).eval()
        model.load_state_dict(state, strict=False)
        return model(tokens)

    for option in (
        {"position": "rotary"},
        {"norm": "rms"},
        {"norm_eps": 0.5},
        {"norm_order": "post"},
        {"activation": "silu"},
        {"scale_embedding": False},
        {"scale_scores": False},
    ):
        assert not torch.allclose(logits(**option), logits(), atol=1e-3), option
