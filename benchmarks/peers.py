"""What people would pick instead of tfcourse, built in the sizes of a shape.

A peer is timed only after `check` has loaded its weights into our model of the same
style and found as many trainable parameters and the same logits.
"""

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from benchmarks.shapes import Shape, Style, config_of, random_batch
from benchmarks.torch_nn import TorchNN, names
from tfcourse.data.pairs import IGNORE, Batch
from tfcourse.model.transformer import Transformer
from tfcourse.pretrained import from_pretrained

Call = Callable[[nn.Module, Batch], Tensor]
TOLERANCE = 1e-4  # of the logits, which the checks make about as large as 1 to 10


def _mean_loss(logits: Tensor, target: Tensor) -> Tensor:
    flat = logits.float().flatten(0, 1)
    return F.cross_entropy(flat, target.flatten(), ignore_index=IGNORE)


@dataclass(frozen=True)
class Peer:
    """A model of another library: how it is built, called, and turned into ours."""

    name: str
    style: Style
    build: Callable[[Shape], nn.Module]
    logits: Call
    to_ours: Callable[[nn.Module, Shape], Transformer]
    own_loss: Call | None = None

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss, by the model's own code if it must compute it."""
        if self.own_loss is not None:
            return self.own_loss(model, batch)
        return _mean_loss(self.logits(model, batch), batch.target)


def trainable(model: nn.Module) -> int:
    """Return the number of parameters that training changes, each counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def disturb(model: nn.Module) -> nn.Module:
    """Move every weight in place: biases of 0 and norms of 1 would hide a difference.

    The logits also come to lie further apart, so that rounding chooses no token.
    """
    for weight in model.parameters():
        if weight.requires_grad:
            weight.add_(torch.randn_like(weight), alpha=0.05)
    return model


@torch.no_grad()
def check(peer: Peer, shape: Shape) -> int:
    """Return how many parameters both models have; what differs raises `ValueError`.

    The weights are disturbed first.
    """
    theirs = disturb(peer.build(shape)).eval()
    ours = peer.to_ours(theirs, shape).eval()
    counts = trainable(theirs), trainable(Transformer(config_of(shape, peer.style)))
    if counts[0] != counts[1]:
        raise ValueError(
            f"{peer.name} has {counts[0]} parameters in {shape.name}, ours {counts[1]}"
        )
    batch = random_batch(shape)
    asked = batch.target != IGNORE
    expected, got = peer.logits(theirs, batch)[asked], our_logits(ours, batch)[asked]
    worst = float((expected - got).abs().max())
    if not worst <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ValueError(f"{peer.name}: logits in {shape.name} are off by {worst:.2g}")
    return counts[0]


def our_logits(model: Transformer, batch: Batch) -> Tensor:
    """Return the logits of our model on a batch."""
    return model(
        batch.tokens, batch.source, mask=batch.mask, source_mask=batch.source_mask
    )


def load(
    theirs: Mapping[str, Tensor], names: Mapping[str, str | Sequence[str]], ours: Any
) -> Transformer:
    """Fill our model with their weights; each place is filled, by one or several."""
    rooms = ours.state_dict()
    for place, room in rooms.items():
        module, _, kind = place.rpartition(".")
        found = names.get(module, names.get(place))
        if found is None:
            raise ValueError(f"{place} has no name among theirs")
        parts = [found] if isinstance(found, str) else found
        room.copy_(torch.cat([_weight(theirs, part, kind) for part in parts]))
    return ours


def _weight(weights: Mapping[str, Tensor], module: str, kind: str) -> Tensor:
    for name in (f"{module}.{kind}", f"{module}_{kind}", f"{module}.gamma", module):
        if name in weights:
            return weights[name]
    raise ValueError(f"{module}.{kind} is not among {', '.join(weights)}")


# torch.nn


def _torch_to_ours(model: nn.Module, shape: Shape) -> Transformer:
    table = {ours: theirs for theirs, ours in names(shape).items()}
    table["head_bias"] = "head_bias"
    ours = Transformer(config_of(shape, "biased"))
    return load(model.state_dict(), table, ours)


TORCH_NN = Peer(
    "torch.nn", "biased", TorchNN, lambda model, batch: model(batch), _torch_to_ours
)


# Hugging Face


def _hugging_face(
    name: str,
    style: Style,
    build: Callable[[Shape], nn.Module],
    arguments: Callable[[Batch], dict[str, Any]],
) -> Peer:
    def logits(model: nn.Module, batch: Batch) -> Tensor:
        return model(**arguments(batch)).logits

    def to_ours(model: nn.Module, shape: Shape) -> Transformer:
        longest = {"max_seq_len": shape.length} if style == "t5" else {}
        return from_pretrained(model, leave_out=("cls.seq_relationship",), **longest)

    return Peer(name, style, build, logits, to_ours)


def _gpt2(shape: Shape) -> nn.Module:
    dropouts: dict[str, Any] = dict.fromkeys(
        ("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0
    )
    config = transformers.GPT2Config(
        vocab_size=shape.vocab,
        n_positions=shape.length,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        activation_function="gelu",
        bos_token_id=None,
        eos_token_id=None,
        **dropouts,
    )
    return transformers.GPT2LMHeadModel(config)


def _bert(shape: Shape) -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        max_position_embeddings=shape.length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForMaskedLM(config)


def _marian(shape: Shape) -> nn.Module:
    sizes: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (
            ("layers", shape.layers),
            ("attention_heads", shape.heads),
            ("ffn_dim", 4 * shape.width),
        )
    }
    config = transformers.MarianConfig(
        vocab_size=shape.vocab,
        d_model=shape.width,
        max_position_embeddings=shape.length,
        activation_function="relu",
        dropout=0.0,
        scale_embedding=True,
        pad_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
        **sizes,
    )
    return transformers.MarianMTModel(config)


def _t5(shape: Shape) -> nn.Module:
    options: dict[str, Any] = {
        "vocab_size": shape.vocab,
        "d_model": shape.width,
        "d_kv": shape.width // shape.heads,
        "d_ff": 4 * shape.width,
        "num_layers": shape.layers,
        "num_heads": shape.heads,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    }
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**options))


def _causal_arguments(batch: Batch) -> dict[str, Any]:
    return {"input_ids": batch.tokens, "use_cache": False}


def _padded_arguments(batch: Batch) -> dict[str, Any]:
    return {"input_ids": batch.tokens, "attention_mask": batch.valid}


def _pair_arguments(batch: Batch) -> dict[str, Any]:
    assert batch.source_valid is not None
    return {
        "input_ids": batch.source,
        "attention_mask": batch.source_valid.long(),
        "decoder_input_ids": batch.tokens,
        "use_cache": False,
    }


# x-transformers


def _x_transformers(shape: Shape) -> nn.Module:
    import x_transformers

    options = {
        "depth": shape.layers,
        "heads": shape.heads,
        "attn_dim_head": shape.width // shape.heads,
        "attn_flash": True,
        "ff_no_bias": True,
    }
    sizes = {"num_tokens": shape.vocab, "max_seq_len": shape.length}
    if shape.family == "encoder-decoder":
        sides = {
            f"{side}_{name}": value
            for side in ("enc", "dec")
            for name, value in (options | sizes).items()
        }
        return x_transformers.XTransformer(dim=shape.width, tie_token_emb=True, **sides)
    is_decoder = shape.family == "decoder"
    kind = x_transformers.Decoder if is_decoder else x_transformers.Encoder
    layers = kind(dim=shape.width, **options)
    wrap = x_transformers.TransformerWrapper
    return wrap(**sizes, attn_layers=layers, tie_embedding=True)


def _x_logits(model: Any, batch: Batch) -> Tensor:
    if batch.source is None:
        given = {} if batch.valid is None else {"mask": batch.valid}
        return model(batch.tokens, **given)
    # Its wrapper takes the loss itself, of tokens shifted by one: call its two parts.
    valid = batch.source_valid
    memory = model.encoder(batch.source, mask=valid, return_embeddings=True)
    return model.decoder.net(batch.tokens, context=memory, context_mask=valid)


def _x_names(shape: Shape) -> dict[str, str | Sequence[str]]:
    crossed = shape.family == "encoder-decoder"
    stacks = {"encoder": "encoder.", "decoder": "decoder.net."}
    if not crossed:
        stacks = {shape.family: ""}
    first = next(iter(stacks.values()))
    table: dict[str, str | Sequence[str]] = {"embedding": f"{first}token_emb.emb"}
    table["unembedding"] = "decoder.net.to_logits"
    for ours, theirs in stacks.items():
        table[f"{ours}.positions.table"] = f"{theirs}pos_emb.emb"
        table[f"{ours}.last_norm"] = f"{theirs}attn_layers.final_norm"
        has_cross = crossed and ours == "decoder"
        each = 3 if has_cross else 2
        for number in range(shape.layers):
            layers = [
                f"{theirs}attn_layers.layers.{each * number + part}"
                for part in range(each)
            ]
            table |= _x_block(f"{ours}.blocks.{number}", layers, has_cross)
    return table


def _x_block(
    ours: str, layers: list[str], crossed: bool
) -> dict[str, str | Sequence[str]]:
    kinds = ["self", "cross"] if crossed else ["self"]
    table: dict[str, str | Sequence[str]] = {}
    for kind, layer in zip(kinds, layers, strict=False):
        table[f"{ours}.around_{kind}.norm"] = f"{layer}.0.0"
        parts = [f"{layer}.1.to_{part}" for part in "qkv"]
        table[f"{ours}.{kind}_attention.project_in"] = parts
        table[f"{ours}.{kind}_attention.project_out"] = f"{layer}.1.to_out"
    last = layers[-1]
    table[f"{ours}.around_feed_forward.norm"] = f"{last}.0.0"
    table[f"{ours}.feed_forward.widen"] = f"{last}.1.ff.0.0"
    table[f"{ours}.feed_forward.narrow"] = f"{last}.1.ff.2"
    return table


def _x_to_ours(model: nn.Module, shape: Shape) -> Transformer:
    ours = Transformer(config_of(shape, "plain"))
    weights = dict(model.state_dict())
    for name, module in model.named_modules():
        if hasattr(module, "unit_offset"):  # a norm that stores its gain minus one
            gain = weights[f"{name}.gamma"] + float(module.unit_offset)
            weights[f"{name}.gamma"] = gain
    load(weights, _x_names(shape), ours)
    for stack in (ours.encoder, ours.decoder):
        if stack is not None:  # theirs scales what it adds for the positions
            table: Any = stack.positions.table
            table.weight.mul_(shape.width**-0.5)
    return ours


X_TRANSFORMERS = Peer("x-transformers", "plain", _x_transformers, _x_logits, _x_to_ours)


# nanoGPT, whose code is a file that the caller has


def nano_gpt(path: Path) -> Peer:
    """Return nanoGPT as a peer, from its `model.py`."""
    module = _module_at(path)

    def build(shape: Shape) -> nn.Module:
        config = module.GPTConfig(
            block_size=shape.length,
            vocab_size=shape.vocab,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_embd=shape.width,
            dropout=0.0,
            bias=True,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            return module.GPT(config)

    def logits(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.tokens, batch.target)[0]  # of all tokens only with a target

    def own_loss(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.tokens, batch.target)[1]

    return Peer("nanoGPT", "biased", build, logits, _nano_to_ours, own_loss)


def _module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file: give nanoGPT's model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    missing = [name for name in ("GPT", "GPTConfig") if not hasattr(module, name)]
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}")
    return module


def _nano_to_ours(model: nn.Module, shape: Shape) -> Transformer:
    table: dict[str, str | Sequence[str]] = {
        "embedding": "transformer.wte",
        "decoder.positions.table": "transformer.wpe",
        "decoder.last_norm": "transformer.ln_f",
    }
    parts = {
        "around_self.norm": "ln_1",
        "self_attention.project_in": "attn.c_attn",
        "self_attention.project_out": "attn.c_proj",
        "around_feed_forward.norm": "ln_2",
        "feed_forward.widen": "mlp.c_fc",
        "feed_forward.narrow": "mlp.c_proj",
    }
    for number in range(shape.layers):
        before, after = f"decoder.blocks.{number}", f"transformer.h.{number}"
        table |= {f"{before}.{ours}": f"{after}.{name}" for ours, name in parts.items()}
    return load(model.state_dict(), table, Transformer(config_of(shape, "biased")))


def peers_of(shape: Shape, nanogpt: Path | None = None) -> list[Peer]:
    """Return everything that a shape is compared with."""
    if shape.family == "encoder":
        return [
            TORCH_NN,
            _hugging_face("HF BERT", "biased", _bert, _padded_arguments),
            X_TRANSFORMERS,
        ]
    if shape.family == "encoder-decoder":
        return [
            TORCH_NN,
            _hugging_face("HF Marian", "biased", _marian, _pair_arguments),
            _hugging_face("HF T5", "t5", _t5, _pair_arguments),
            X_TRANSFORMERS,
        ]
    extra = [] if nanogpt is None else [nano_gpt(nanogpt)]
    gpt2 = _hugging_face("HF GPT-2", "biased", _gpt2, _causal_arguments)
    return [TORCH_NN, gpt2, *extra, X_TRANSFORMERS]
