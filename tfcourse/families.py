"""What sets GPT-2, BERT, T5, Llama and Marian apart, as Hugging Face stores them.

Each family is our Transformer under another config. A reader turns a family's config
into ours; a table says which of its weights stand in which of our places.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tfcourse.model.config import TransformerConfig
from tfcourse.model.positions import sinusoids

Weights = dict[str, Tensor]

# Names of transformers' activations; several are one function.
ACTIVATIONS = {
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate"), "gelu_tanh"),
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_python_tanh"), "gelu_tanh"),
    **dict.fromkeys(("silu", "swish"), "silu"),
    "relu": "relu",
}


def read_config(config: Any) -> TransformerConfig:
    """Turn a Hugging Face config of one of the families into ours.

    What the config does not say, the weights do: whether BERT has a head, and whether
    a head that may be tied is. Dropout stands in other places than theirs. A family
    that is not known, and an option that our model does not have, raise `ValueError`.
    """
    family = find_family(config)
    _require(config, quantization_config=None)
    common = {
        "vocab_size": config.vocab_size,
        "d_model": config.hidden_size,
        "num_heads": config.num_attention_heads,
        "tie_embeddings": config.tie_word_embeddings,
    }
    return TransformerConfig(**{**common, **family.read(config)})


def find_family(config: Any) -> "Family":
    """Return the family that a Hugging Face config belongs to."""
    kind = getattr(config, "model_type", type(config).__name__)
    if kind not in FAMILIES:
        raise ValueError(
            f"{kind!r} is not a family that can be loaded: {', '.join(FAMILIES)} are"
        )
    return FAMILIES[kind]


def _require(config: Any, **options: Any) -> None:
    for name, value in options.items():
        given = getattr(config, name, value)
        if given != value:
            raise ValueError(
                f"{config.model_type} with {name}={given!r} cannot be represented: "
                f"only {value!r} can"
            )


def _activation(config: Any, option: str, name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(
            f"{config.model_type} with {option}={getattr(config, option)!r} cannot be "
            f"represented: of the functions only {', '.join(ACTIVATIONS)} can"
        )
    return ACTIVATIONS[name]


def _read_gpt2(config: Any) -> dict[str, Any]:
    _require(config, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    _require(config, reorder_and_upcast_attn=False)
    activation = config.activation_function
    return {
        "max_seq_len": config.n_positions,
        "num_decoder_layers": config.n_layer,
        "d_ff": 4 * config.n_embd if config.n_inner is None else config.n_inner,
        "dropout": config.resid_pdrop,
        "position": "learned",
        "norm_eps": config.layer_norm_epsilon,
        "activation": _activation(config, "activation_function", activation),
        "scale_scores": config.scale_attn_weights,
        "scale_embedding": False,
    }


def _read_bert(config: Any) -> dict[str, Any]:
    _require(config, position_embedding_type="absolute")
    _require(config, is_decoder=False, add_cross_attention=False)
    return {
        "max_seq_len": config.max_position_embeddings,
        "num_encoder_layers": config.num_hidden_layers,
        "d_ff": config.intermediate_size,
        "dropout": config.hidden_dropout_prob,
        "position": "learned",
        "norm_order": "post",
        "norm_eps": config.layer_norm_eps,
        "activation": _activation(config, "hidden_act", config.hidden_act),
        "scale_embedding": False,
        "embedding_norm": True,
        "num_segments": config.type_vocab_size,
    }


def _read_t5(config: Any) -> dict[str, Any]:
    _require(config, is_decoder=False)
    crossed = config.is_encoder_decoder
    activation = config.dense_act_fn
    return {
        "max_seq_len": getattr(config, "n_positions", 512),
        "num_encoder_layers": config.num_layers,
        "num_decoder_layers": config.num_decoder_layers if crossed else 0,
        "d_ff": config.d_ff,
        "head_dim": config.d_kv,
        "dropout": config.dropout_rate,
        "position": "relative",
        "relative_buckets": config.relative_attention_num_buckets,
        "relative_max_distance": config.relative_attention_max_distance,
        "norm": "rms",
        "norm_eps": config.layer_norm_epsilon,
        "activation": _activation(config, "feed_forward_proj", activation),
        "gated": config.is_gated_act,
        "bias": False,
        "scale_scores": False,
        "scale_embedding": False,
        # transformers calls every T5 tied; version 1.1, which has a head of its own,
        # is known by its logits' not being scaled. An encoder alone has no head.
        "tie_embeddings": config.scale_decoder_outputs or not crossed,
        "scale_logits": config.scale_decoder_outputs and crossed,
    }


def _read_llama(config: Any) -> dict[str, Any]:
    _require(config, mlp_bias=config.attention_bias, sliding_window=None)
    rope = SimpleNamespace(model_type="llama", **config.rope_parameters)
    _require(rope, rope_type="default", partial_rotary_factor=1.0)
    return {
        "max_seq_len": config.max_position_embeddings,
        "num_decoder_layers": config.num_hidden_layers,
        "num_kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "d_ff": config.intermediate_size,
        "dropout": config.attention_dropout or 0.0,
        "position": "rotary",
        "rotary_base": rope.rope_theta,
        "norm": "rms",
        "norm_eps": config.rms_norm_eps,
        "activation": _activation(config, "hidden_act", config.hidden_act),
        "gated": True,
        "bias": config.attention_bias,
        "scale_embedding": False,
    }


def _read_marian(config: Any) -> dict[str, Any]:
    _require(config, share_encoder_decoder_embeddings=True, is_decoder=False)
    _require(config, static_position_embeddings=True, add_final_layer_norm=False)
    _require(config, normalize_before=False, normalize_embedding=False)
    _require(config, decoder_vocab_size=config.vocab_size)
    _require(config, decoder_ffn_dim=config.encoder_ffn_dim)
    _require(config, decoder_attention_heads=config.encoder_attention_heads)
    activation = config.activation_function
    return {
        "max_seq_len": config.max_position_embeddings,
        "num_encoder_layers": config.encoder_layers,
        "num_decoder_layers": config.decoder_layers,
        "d_ff": config.encoder_ffn_dim,
        "dropout": config.dropout,
        "position": "sinusoidal",
        "norm_order": "post",
        "activation": _activation(config, "activation_function", activation),
        "scale_embedding": config.scale_embedding,
        "head_bias": True,
    }


# Tables from our names to theirs. # is the number of a layer; what stands in {} are
# matrices that we stack, in that order.


def _within(ours: str, theirs: str, table: dict[str, str]) -> dict[str, str]:
    return {f"{ours}.{name}": f"{theirs}.{other}" for name, other in table.items()}


def _gpt2_names() -> dict[str, str]:
    block = {
        "around_self.norm": "ln_1",
        "self_attention.project_in": "attn.c_attn",
        "self_attention.project_out": "attn.c_proj",
        "around_feed_forward.norm": "ln_2",
        "feed_forward.widen": "mlp.c_fc",
        "feed_forward.narrow": "mlp.c_proj",
    }
    return {
        "embedding": "wte",
        "decoder.positions.table": "wpe",
        **_within("decoder.blocks.#", "h.#", block),
        "decoder.last_norm": "ln_f",
        "unembedding": "lm_head",
    }


def _bert_names() -> dict[str, str]:
    block = {
        "self_attention.project_in": "attention.self.{query,key,value}",
        "self_attention.project_out": "attention.output.dense",
        "around_self.norm": "attention.output.LayerNorm",
        "feed_forward.widen": "intermediate.dense",
        "feed_forward.narrow": "output.dense",
        "around_feed_forward.norm": "output.LayerNorm",
    }
    return {
        "embedding": "embeddings.word_embeddings",
        "encoder.positions.table": "embeddings.position_embeddings",
        "segments": "embeddings.token_type_embeddings",
        "encoder.first_norm": "embeddings.LayerNorm",
        **_within("encoder.blocks.#", "encoder.layer.#", block),
        "head_transform.0": "cls.predictions.transform.dense",
        "head_transform.2": "cls.predictions.transform.LayerNorm",
        "unembedding": "cls.predictions.decoder",
        "head_bias": "cls.predictions.decoder.bias",
    }


def _t5_names() -> dict[str, str]:
    names = {"embedding": "shared", "unembedding": "lm_head"}
    for stack, last in (("encoder", 1), ("decoder", 2)):
        block = {
            "around_self.norm": "layer.0.layer_norm",
            "self_attention.project_in": "layer.0.SelfAttention.{q,k,v}",
            "self_attention.project_out": "layer.0.SelfAttention.o",
            "around_cross.norm": "layer.1.layer_norm",
            "cross_attention.project_in": "layer.1.EncDecAttention.{q,k,v}",
            "cross_attention.project_out": "layer.1.EncDecAttention.o",
            "around_feed_forward.norm": f"layer.{last}.layer_norm",
            "feed_forward.gate": f"layer.{last}.DenseReluDense.wi_0",
            "feed_forward.widen": f"layer.{last}.DenseReluDense.wi_1",
            "feed_forward.narrow": f"layer.{last}.DenseReluDense.wo",
        }
        table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        names[f"{stack}.positions.table"] = table
        names |= _within(f"{stack}.blocks.#", f"{stack}.block.#", block)
        names[f"{stack}.last_norm"] = f"{stack}.final_layer_norm"
    return names


def _llama_names() -> dict[str, str]:
    block = {
        "around_self.norm": "input_layernorm",
        "self_attention.project_in": "self_attn.{q_proj,k_proj,v_proj}",
        "self_attention.project_out": "self_attn.o_proj",
        "around_feed_forward.norm": "post_attention_layernorm",
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.widen": "mlp.up_proj",
        "feed_forward.narrow": "mlp.down_proj",
    }
    return {
        "embedding": "embed_tokens",
        **_within("decoder.blocks.#", "layers.#", block),
        "decoder.last_norm": "norm",
        "unembedding": "lm_head",
    }


def _marian_names() -> dict[str, str]:
    block = {
        "self_attention.project_in": "self_attn.{q_proj,k_proj,v_proj}",
        "self_attention.project_out": "self_attn.out_proj",
        "around_self.norm": "self_attn_layer_norm",
        "cross_attention.project_in": "encoder_attn.{q_proj,k_proj,v_proj}",
        "cross_attention.project_out": "encoder_attn.out_proj",
        "around_cross.norm": "encoder_attn_layer_norm",
        "feed_forward.widen": "fc1",
        "feed_forward.narrow": "fc2",
        "around_feed_forward.norm": "final_layer_norm",
    }
    return {
        "embedding": "shared",
        **_within("encoder.blocks.#", "encoder.layers.#", block),
        **_within("decoder.blocks.#", "decoder.layers.#", block),
        "unembedding": "lm_head",
        "head_bias": "final_logits_bias",
    }


def _gpt2_weights(weights: Weights) -> Weights:
    """Turn Conv1D's matrices, [in, out], into those of a linear layer, [out, in]."""
    return {
        name: weight.T if re.search(r"\bc_\w+\.weight$", name) else weight
        for name, weight in weights.items()
    }


def _t5_weights(weights: Weights) -> Weights:
    """Call the matrix that widens wi_1 even where there is no wi_0 that gates it."""
    return {name.replace(".wi.", ".wi_1."): w for name, w in weights.items()}


def _marian_weights(weights: Weights) -> Weights:
    """Reorder the features of the residual stream: their sinusoids come in halves.

    Theirs are all sines, then all cosines; ours alternate. Sums and norms over the
    features do not care for the order, so it is enough to reorder each matrix where it
    reads the stream or writes to it. The sinusoids are then ours, and stay behind.
    """
    ordered = {}
    for name, weight in weights.items():
        if name.endswith("final_logits_bias"):
            ordered[name] = weight.flatten()  # it was [1, vocab]
        elif re.search(r"(out_proj|fc2|layer_norm)\.\w+$", name):
            ordered[name] = _alternate(weight, 0)  # writes: its rows, or its bias
        elif weight.dim() == 2:
            ordered[name] = _alternate(weight, 1)  # reads
        else:
            ordered[name] = weight
    for name in [name for name in ordered if name.endswith("embed_positions.weight")]:
        table = ordered.pop(name)
        ours = sinusoids(torch.arange(len(table)), table.shape[1]).to(table)
        if not torch.allclose(table, ours, atol=2 * torch.finfo(table.dtype).eps):
            raise ValueError(f"{name} does not hold the sinusoids of Vaswani et al.")
    return ordered


def _alternate(weight: Tensor, dim: int) -> Tensor:
    """Turn a₀ a₁ … b₀ b₁ … into a₀ b₀ a₁ b₁ … along `dim`."""
    order = torch.arange(weight.shape[dim], device=weight.device)
    return weight.index_select(dim, order.view(2, -1).T.flatten())


@dataclass(frozen=True)
class Family:
    """How the config and the weights of one family are read.

    `copies` maps a weight to the one that it must repeat: it then needs no place.
    """

    read: Callable[[Any], dict[str, Any]]
    names: dict[str, str]
    copies: dict[str, str]
    prepare: Callable[[Weights], Weights] = dict


_SHARED = {
    "lm_head.weight": "shared.weight",
    "encoder.embed_tokens.weight": "shared.weight",
    "decoder.embed_tokens.weight": "shared.weight",
}
FAMILIES = {
    "gpt2": Family(
        _read_gpt2, _gpt2_names(), {"lm_head.weight": "wte.weight"}, _gpt2_weights
    ),
    "bert": Family(
        _read_bert,
        _bert_names(),
        {
            "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
            "cls.predictions.bias": "cls.predictions.decoder.bias",
        },
    ),
    "t5": Family(_read_t5, _t5_names(), _SHARED, _t5_weights),
    "llama": Family(
        _read_llama, _llama_names(), {"lm_head.weight": "embed_tokens.weight"}
    ),
    "marian": Family(_read_marian, _marian_names(), _SHARED, _marian_weights),
}
