"""Loaded weights make the model that they came from; what cannot be so is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pretrained_models import (
    bert,
    both_outputs,
    gpt2,
    left_padded,
    llama,
    marian,
    right_padded,
    speaker,
    t5,
)
from safetensors.torch import load_file, save_file
from small_models import small_model, some_tokens
from torch import Tensor

from tfcourse.families import ACTIVATIONS
from tfcourse.generation import generate
from tfcourse.model.masks import padding
from tfcourse.pretrained import from_pretrained, read_config, save_pretrained

V11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
FAR = {"relative_attention_max_distance": 128}
HEADS = {"encoder_attention_heads": 3, "decoder_attention_heads": 3}
CASES: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    *((gpt2, {"activation_function": name}) for name in ACTIVATIONS),
    (gpt2, {"n_inner": 20}),
    (gpt2, {"scale_attn_weights": False}),
    (gpt2, {"tie_word_embeddings": False, "layer_norm_epsilon": 0.1}),
    (gpt2, {"kind": "GPT2Model"}),
    (bert, {}),
    (bert, {"hidden_act": "relu"}),
    (bert, {"hidden_act": "gelu_new", "layer_norm_eps": 0.1}),
    (bert, {"type_vocab_size": 1}),
    (bert, {"tie_word_embeddings": False, "leave_out": ["cls.predictions.bias"]}),
    (bert, {"kind": "BertModel", "leave_out": ["pooler"]}),
    (bert, {"kind": "BertModel", "leave_out": "pooler"}),
    (
        bert,
        {
            "kind": "BertForPreTraining",
            "leave_out": ["bert.pooler", "cls.seq_relationship"],
        },
    ),
    (t5, {}),
    (t5, {"feed_forward_proj": "gelu", "layer_norm_epsilon": 0.1}),
    (t5, {"relative_attention_num_buckets": 32, **FAR}),
    (t5, FAR),
    (t5, {"kind": "T5EncoderModel"}),
    (t5, V11),
    (t5, {**V11, "feed_forward_proj": "gated-silu"}),
    (t5, {**V11, "kind": "T5EncoderModel"}),
    (t5, {**V11, "d_model": 24, "d_ff": 10}),
    (llama, {"num_attention_heads": 4, "hidden_size": 16, "num_key_value_heads": 1}),
    (llama, {"num_attention_heads": 4, "hidden_size": 16, "num_key_value_heads": 2}),
    (llama, {"num_attention_heads": 4, "hidden_size": 16, "num_key_value_heads": 4}),
    (llama, {"rope_theta": 30.0}),
    (llama, {"rope_theta": 500_000.0, "rms_norm_eps": 0.1}),
    (llama, {"head_dim": 10}),
    (llama, {"head_dim": 2, "num_key_value_heads": 1, "hidden_act": "gelu"}),
    (llama, {"tie_word_embeddings": True}),
    (llama, {"attention_bias": True, "mlp_bias": True}),
    (marian, {"activation_function": "relu"}),
    (marian, {"activation_function": "silu"}),
    (marian, {"activation_function": "swish", "scale_embedding": True}),
    (marian, {"scale_embedding": True}),
    (marian, {"d_model": 18, "encoder_layers": 1, "decoder_layers": 3, **HEADS}),
]


def shown(value: Any) -> str:
    return ",".join(f"{key}={item}" for key, item in value.items())


@pytest.mark.parametrize(
    ("seed", "make", "options"),
    [
        pytest.param(seed, *case, id=f"{case[0].__name__}-{shown(case[1])}")
        for seed, case in enumerate(CASES)
    ],
)
def test_outputs_are_those_of_transformers(
    seed: int, make: Callable[..., Any], options: dict[str, Any]
) -> None:
    options = dict(options)
    leave_out = options.pop("leave_out", ())
    theirs = make(seed, **options)
    ours = from_pretrained(theirs, leave_out=leave_out)
    wanted, got = both_outputs(theirs, ours)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
    assert torch.equal(got.argmax(-1), wanted.argmax(-1))
    assert len(got.argmax(-1).unique()) > 1
    assert not ours.training


def test_a_classifier_gives_its_body() -> None:
    theirs = bert(kind="BertForSequenceClassification", num_labels=5)
    ours = from_pretrained(theirs, leave_out=["bert.pooler", "classifier"])
    tokens, valid = right_padded()
    wanted = theirs(tokens, attention_mask=valid.long()).logits
    body = ours(tokens, mask=padding(valid), output="hidden")
    got = theirs.classifier(theirs.bert.pooler(body))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_a_head_that_was_untied_in_the_weights_alone_is_kept() -> None:
    theirs = t5(3)
    head = torch.randn_like(theirs.lm_head.weight)
    theirs.lm_head.weight = torch.nn.Parameter(head)
    ours = from_pretrained(theirs)
    assert ours.config.scale_logits
    assert not ours.config.tie_embeddings
    wanted, got = both_outputs(theirs, ours)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


# --- generation


TWO = {"num_layers": 2, "num_decoder_layers": 2}  # theirs caches for no other depths
STOP = {"stop_token": 1, "pad_token": 0}


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("seed", range(3))
def test_decoders_continue_prompts_of_unequal_length_alike(
    make: Callable[..., Any], seed: int
) -> None:
    theirs = speaker(make, seed, eos_token_id=1, pad_token_id=0)
    prompt, valid = left_padded(rows=5, length=13)
    wanted = theirs.generate(
        prompt, attention_mask=valid.long(), do_sample=False, max_new_tokens=20
    )
    got = generate(
        from_pretrained(theirs), prompt, prompt_mask=valid, max_new_tokens=20, **STOP
    )
    assert torch.equal(got, wanted)
    assert len(got[:, 13:].unique()) > 3  # not one token for ever


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (t5, TWO),
        (t5, {**V11, **TWO}),
        (marian, {"scale_embedding": True}),
        (marian, {"activation_function": "silu"}),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_sources_of_unequal_length_are_translated_alike(
    make: Callable[..., Any], options: dict[str, Any], seed: int
) -> None:
    theirs = speaker(make, seed, **options)
    source, valid = right_padded(rows=5, length=13)
    wanted = theirs.generate(
        source, attention_mask=valid.long(), do_sample=False, max_new_tokens=20
    )
    got = generate(
        from_pretrained(theirs),
        torch.zeros(5, 1, dtype=torch.long),
        source=source,
        source_mask=padding(valid),
        max_new_tokens=20,
        **STOP,
    )
    assert torch.equal(got, wanted)
    assert len(got.unique()) > 3


# --- what is kept


def test_weights_are_copied_in_their_dtype() -> None:
    theirs = marian().bfloat16()
    before = theirs.model.shared.weight.clone()
    state = torch.get_rng_state()
    ours = from_pretrained(theirs)
    assert torch.equal(torch.get_rng_state(), state)
    assert {weight.dtype for weight in ours.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        for weight in ours.parameters():
            weight.zero_()
    assert torch.equal(theirs.model.shared.weight, before)


def test_longer_sequences_than_the_config_says_may_be_asked_for() -> None:
    assert from_pretrained(t5()).config.max_seq_len == 512
    assert from_pretrained(t5(n_positions=99)).config.max_seq_len == 99
    assert from_pretrained(marian(), max_seq_len=50).config.max_seq_len == 50
    with pytest.raises(ValueError, match=r"positions.table.weight \[50, .*\] for \[40"):
        from_pretrained(gpt2(), max_seq_len=50)


def test_dropout_is_read() -> None:
    names = {gpt2: "resid_pdrop", bert: "hidden_dropout_prob", t5: "dropout_rate"}
    names |= {llama: "attention_dropout", marian: "dropout"}
    for make, name in names.items():
        assert read_config(make(**{name: 0.25}).config).dropout == 0.25
    assert read_config(llama(attention_dropout=None).config).dropout == 0


# --- folders


@pytest.mark.parametrize("make", [gpt2, bert, t5, llama, marian])
@pytest.mark.parametrize("as_text", [True, False])
def test_a_folder_of_theirs_gives_what_its_model_gives(
    make: Callable[..., Any], as_text: bool, tmp_path: Path
) -> None:
    theirs = make()
    theirs.save_pretrained(tmp_path)
    ours = from_pretrained(str(tmp_path) if as_text else tmp_path)
    same(ours, from_pretrained(theirs))


def test_a_model_with_a_head_of_its_own_comes_back_from_its_folder(
    tmp_path: Path,
) -> None:
    theirs = t5(**V11)
    theirs.lm_head.weight = torch.nn.Parameter(torch.randn_like(theirs.lm_head.weight))
    theirs.save_pretrained(tmp_path)
    ours = from_pretrained(tmp_path)
    same(ours, from_pretrained(theirs))
    torch.testing.assert_close(*both_outputs(theirs, ours), atol=1e-4, rtol=0)


def same(first: Any, second: Any) -> None:
    assert first.config == second.config
    weights, others = first.state_dict(), second.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("make", [gpt2, t5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_our_folder_gives_the_same_logits_bit_for_bit(
    make: Callable[..., Any],
    dtype: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = from_pretrained(make().to(dtype))
    save_pretrained(before, tmp_path / "new" / "model")
    monkeypatch.setitem(sys.modules, "transformers", None)  # an import of it fails
    after = from_pretrained(tmp_path / "new" / "model")
    same(after, before)
    tokens = some_tokens(vocab=37)
    source = {"source": some_tokens(vocab=37)} if make is t5 else {}
    logits = after(tokens, **source)
    assert logits.dtype == dtype
    assert torch.equal(logits, before(tokens, **source))
    assert not after.training


def test_a_model_of_half_precision_keeps_its_tables_in_it(tmp_path: Path) -> None:
    before = small_model("encoder-decoder", position="sinusoidal").bfloat16()
    save_pretrained(before, tmp_path)
    tokens = some_tokens()
    after = from_pretrained(tmp_path)
    assert torch.equal(after(tokens, tokens), before(tokens, tokens))


def test_a_name_is_passed_to_transformers_which_must_run_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = gpt2()
    theirs.config.architectures = ["GPT2LMHeadModel"]
    asked = {}

    def config(name: str, **options: Any) -> Any:
        asked.update(options, config=name)
        return theirs.config

    def model(name: str, **options: Any) -> Any:
        asked.update(options, model=name)
        return theirs, {"missing_keys": set(), "unexpected_keys": set()}

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", config)
    monkeypatch.setattr(transformers.GPT2LMHeadModel, "from_pretrained", model)
    same(from_pretrained("openai-community/gpt2"), from_pretrained(theirs))
    assert asked["config"] == asked["model"] == "openai-community/gpt2"
    assert asked["use_safetensors"] is True
    assert asked["trust_remote_code"] is False


def test_transformers_is_not_imported_before_it_is_needed() -> None:
    program = "import sys, tfcourse.pretrained; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "transformers" not in run.stdout.split()


def test_a_failed_write_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = small_model(), small_model()
    save_pretrained(first, tmp_path)

    def fail(weights: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("tfcourse.pretrained.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(second, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    same(from_pretrained(tmp_path), first)


# --- what is refused: options


REFUSED = [
    (gpt2, {"scale_attn_by_inverse_layer_idx": True}),
    (gpt2, {"reorder_and_upcast_attn": True}),
    (gpt2, {"add_cross_attention": True}),
    (gpt2, {"activation_function": "tanh"}),
    (bert, {"position_embedding_type": "relative_key"}),
    (bert, {"is_decoder": True}),
    (bert, {"add_cross_attention": True}),
    (bert, {"hidden_act": "quick_gelu"}),
    (t5, {"feed_forward_proj": "gated-sigmoid"}),
    (t5, {"is_decoder": True}),
    (llama, {"mlp_bias": True}),
    (llama, {"hidden_act": "relu2"}),
    (llama, {"sliding_window": 4}),
    (llama, {"quantization_config": {"quant_method": "gptq"}}),
    (marian, {"share_encoder_decoder_embeddings": False}),
    (marian, {"static_position_embeddings": False}),
    (marian, {"add_final_layer_norm": True}),
    (marian, {"normalize_before": True}),
    (marian, {"normalize_embedding": True}),
    (marian, {"is_decoder": True}),
    (marian, {"decoder_vocab_size": 40}),
    (marian, {"decoder_ffn_dim": 40}),
    (marian, {"decoder_attention_heads": 8}),
    (marian, {"activation_function": "gelu_10"}),
]
CONFIGS = {
    gpt2: transformers.GPT2Config,
    bert: transformers.BertConfig,
    t5: transformers.T5Config,
    llama: transformers.LlamaConfig,
    marian: transformers.MarianConfig,
}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        pytest.param(*case, id=f"{case[0].__name__}-{shown(case[1])}")
        for case in REFUSED
    ],
)
def test_an_option_that_we_do_not_have_is_refused_by_name_and_value(
    make: Callable[..., Any], options: dict[str, Any]
) -> None:
    config = CONFIGS[make]()
    read_config(config)
    for name, value in options.items():
        setattr(config, name, value)
    if "feed_forward_proj" in options:
        config = transformers.T5Config(**options)
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match="cannot be represented") as error:
        read_config(config)
    assert f"{config.model_type} with {name}={value!r}" in str(error.value)


@pytest.mark.parametrize(
    ("rope", "named"),
    [
        ({"rope_type": "linear", "factor": 2.0}, "rope_type='linear'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ],
)
def test_rotary_positions_of_another_kind_are_refused(
    rope: dict[str, Any], named: str
) -> None:
    config = transformers.LlamaConfig()
    config.rope_parameters = {**config.rope_parameters, **rope}
    with pytest.raises(ValueError, match=named):
        read_config(config)


@pytest.mark.parametrize("config", [transformers.MT5Config(), object()])
def test_an_unknown_family_is_refused_with_those_that_are_known(config: Any) -> None:
    name = getattr(config, "model_type", "object")
    known = "gpt2, bert, t5, llama, marian"
    with pytest.raises(ValueError, match=f"'{name}' is not a family .*: {known} are"):
        read_config(config)


def test_what_is_no_model_of_theirs_is_refused() -> None:
    with pytest.raises(ValueError, match="'Linear' is not a family"):
        from_pretrained(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="'TransformerConfig' is not a family"):
        from_pretrained(small_model())


# --- what is refused: weights


def test_every_weight_without_a_place_is_named() -> None:
    with pytest.raises(ValueError, match="weights without a place") as error:
        from_pretrained(bert(kind="BertForPreTraining"))
    named = str(error.value).partition(": ")[2].split(", ")
    assert named == [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
    ]


def test_a_prefix_ends_where_a_name_does() -> None:
    with pytest.raises(ValueError, match=r"without a place.*: pooler.dense.bias, "):
        from_pretrained(bert(kind="BertModel"), leave_out=["pool"])


def test_every_place_without_a_weight_is_named() -> None:
    with pytest.raises(ValueError, match="places without a weight") as error:
        from_pretrained(gpt2(), leave_out=["transformer.h.0.ln_1", "lm_head"])
    named = str(error.value).partition(": ")[2].split(", ")
    norm = "decoder.blocks.0.around_self.norm"
    assert named == [f"{norm}.bias", f"{norm}.weight"]


def test_what_is_too_much_and_what_is_missing_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"a place: .*pooler.*; places .*: segments"):
        from_pretrained(
            bert(kind="BertModel"), leave_out=["embeddings.token_type_embeddings"]
        )


def test_a_packed_place_needs_all_of_its_parts() -> None:
    left = ["model.layers.0.self_attn.k_proj"]
    with pytest.raises(ValueError, match=r"weight: .*self_attention.project_in.weight"):
        from_pretrained(
            llama(),
            leave_out=[*left, *(left[0].replace("k_", x) for x in ("q_", "v_"))],
        )
    with pytest.raises(ValueError, match=r"weight: .*self_attention.project_in.weight"):
        from_pretrained(llama(), leave_out=left)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (t5, "encoder.embed_tokens"),
        (t5, "decoder.embed_tokens"),
        (marian, "model.encoder.embed_tokens"),
        (marian, "model.decoder.embed_tokens"),
    ],
)
def test_an_embedding_that_only_one_stack_has_is_refused(
    make: Callable[..., Any], name: str
) -> None:
    theirs = make()
    module = theirs.get_submodule(name)
    module.weight = torch.nn.Parameter(torch.randn_like(module.weight))
    with pytest.raises(ValueError, match=f"weights without a place.*: {name}.weight$"):
        from_pretrained(theirs)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_sinusoids_that_are_not_ours_are_refused(stack: str) -> None:
    theirs = marian()
    name = f"model.{stack}.embed_positions"
    with torch.no_grad():
        theirs.get_submodule(name).weight[3, 2] += 0.01
    with pytest.raises(ValueError, match=f"{name}.weight does not hold the sinusoids"):
        from_pretrained(theirs)


def test_weights_of_several_dtypes_are_refused() -> None:
    theirs = gpt2()
    theirs.transformer.ln_f.half()
    with pytest.raises(ValueError, match=r"not torch\.float16, torch\.float32"):
        from_pretrained(theirs)


# --- what is refused: files


def folder_of(theirs: Any, folder: Path) -> tuple[Path, dict[str, Tensor]]:
    theirs.save_pretrained(folder)
    return folder, load_file(folder / "model.safetensors")


def test_what_a_file_lacks_is_not_made_up(tmp_path: Path) -> None:
    folder, weights = folder_of(t5(1), tmp_path)
    del weights["encoder.block.0.layer.1.DenseReluDense.wi.weight"]
    del weights["decoder.final_layer_norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="places without a weight") as error:
        from_pretrained(folder)
    assert str(error.value).endswith(
        "decoder.last_norm.weight, encoder.blocks.0.feed_forward.widen.weight"
    )


def test_what_a_file_has_to_spare_is_named_unless_it_is_left_out(
    tmp_path: Path,
) -> None:
    folder, weights = folder_of(bert(), tmp_path)
    more = {"cls.seq_relationship.weight": torch.ones(2, 3)}
    save_file(weights | more, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"a place.*: cls.seq_relationship.weight$"):
        from_pretrained(folder)
    from_pretrained(folder, leave_out=["cls.seq_relationship"])


def test_pickles_are_not_read(tmp_path: Path) -> None:
    folder, weights = folder_of(gpt2(), tmp_path)
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no \*\.safetensors; pickles are not loaded"):
        from_pretrained(folder)


@pytest.mark.parametrize("named", [None, ["GPT2FromElsewhere"]])
def test_a_folder_must_name_a_known_architecture(
    named: list[str] | None, tmp_path: Path
) -> None:
    folder, _ = folder_of(gpt2(), tmp_path)
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "architectures": named}))
    with pytest.raises(ValueError, match=r"architecture '.*' is not in transformers"):
        from_pretrained(folder)


def test_weights_of_another_shape_than_the_config_says_are_refused(
    tmp_path: Path,
) -> None:
    folder, weights = folder_of(gpt2(), tmp_path)
    weights["transformer.ln_f.weight"] = torch.ones(3)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"cannot be read: .*"):
        from_pretrained(folder)


@pytest.mark.parametrize("ours", [True, False])
def test_a_broken_file_of_weights_is_refused(ours: bool, tmp_path: Path) -> None:
    if ours:
        save_pretrained(small_model(), tmp_path)
    else:
        gpt2().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=str(tmp_path)):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, r"config\.json cannot be read: .*No such file"),
        ("{", r"config\.json cannot be read: Expecting property name"),
        ("[1]", r"config\.json must hold an object, not list"),
        ('{"model_type": "tfcourse"}', "no model of ours: .*'vocab_size'"),
    ],
)
def test_a_broken_config_is_refused(
    text: str | None, fault: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=fault):
        from_pretrained(tmp_path)


def test_a_field_that_our_config_does_not_have_is_refused(tmp_path: Path) -> None:
    save_pretrained(small_model(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": 1}))
    with pytest.raises(ValueError, match=r"no model of ours: .*'colour'"):
        from_pretrained(tmp_path)


def test_a_folder_of_ours_without_weights_is_refused(tmp_path: Path) -> None:
    save_pretrained(small_model(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no model of ours: .*model.safetensors"):
        from_pretrained(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"cannot be read: .*Not a directory"):
        from_pretrained(path)


def test_weights_of_ours_that_the_config_does_not_ask_for_are_refused(
    tmp_path: Path,
) -> None:
    save_pretrained(small_model(), tmp_path)
    path = tmp_path / "model.safetensors"
    save_file(load_file(path) | {"extra": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"weights without a place.*: extra$"):
        from_pretrained(tmp_path)
    save_file({}, path)
    with pytest.raises(ValueError, match="one floating-point dtype, not none"):
        from_pretrained(tmp_path)
