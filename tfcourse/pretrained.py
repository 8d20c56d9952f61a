"""Models from files: those that others published, and our own."""

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tfcourse.families import Weights, find_family, read_config
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer

__all__ = ["from_pretrained", "read_config", "save_pretrained"]

CONFIG, WEIGHTS, OURS = "config.json", "model.safetensors", "tfcourse"


def from_pretrained(
    model: Any, *, leave_out: Iterable[str] = (), max_seq_len: int | None = None
) -> Transformer:
    """Return GPT-2, BERT, T5, Llama or Marian as our Transformer, in eval mode.

    `model` is a Hugging Face model, the folder of one in safetensors, a name on their
    hub, or a folder written by `save_pretrained`. Logits in eval mode are the same;
    dtype and device are kept; weights are copied. `leave_out` names weights or modules
    ("bert.pooler") that stay behind. `max_seq_len` replaces the config's; T5, whose
    positions are relative, names none and gets 512. Any other weight without a place,
    a place without a weight, and options that we do not have raise `ValueError`.
    """
    if not isinstance(model, str | Path):
        stored = _theirs(model)
    else:
        path = Path(model)
        fields = _read_fields(path) if path.exists() else {}
        is_ours = fields.get("model_type") == OURS
        stored = _ours(path, fields) if is_ours else _theirs(*_load_theirs(model))
    if max_seq_len is not None:
        stored.config = replace(stored.config, max_seq_len=max_seq_len)
    return stored.build([leave_out] if isinstance(leave_out, str) else leave_out)


def save_pretrained(model: Transformer, folder: str | Path) -> None:
    """Write config.json and model.safetensors into `folder`, each whole or not at all.

    `from_pretrained` reads them again without any other library.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: w.contiguous() for name, w in model.state_dict().items()}
    fields = {"model_type": OURS, **asdict(model.config)}
    text = json.dumps(fields, indent=2) + "\n"
    _write(folder / WEIGHTS, lambda path: save_file(weights, path, {"format": "pt"}))
    _write(folder / CONFIG, lambda path: path.write_text(text, encoding="utf-8"))


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    beside = path.with_name(f"{path.name}.part")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@dataclass
class _Stored:
    """A config, the weights that came with it, and the table of their names.

    `base` may stand before a name; `copies` and `names` are those of a `Family`;
    `strays` are names of weights that their own model had no place for.
    """

    config: TransformerConfig
    weights: Weights
    names: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    base: str = ""
    strays: set[str] = field(default_factory=set)

    def build(self, leave_out: Iterable[str]) -> Transformer:
        """Return a model that holds all weights but `leave_out`, in their dtype."""
        prefixes = tuple(f"{name}." for name in leave_out)
        names = self.strays.union(self.weights)
        kept = {name for name in names if not f"{name}.".startswith(prefixes)}
        self.weights = {n: w for n, w in self.weights.items() if n in kept}
        model = self._make_model()
        rooms = model.state_dict()
        sources = {place: self._sources(place) for place in rooms}
        used = {name for names in sources.values() for name in names}
        spare = [name for name in kept - used if not self._is_copy(name)]
        empty = [place for place in rooms if not kept.issuperset(sources[place])]
        _refuse({"weights without a place": spare, "places without a weight": empty})
        misfits = []
        for place, room in rooms.items():
            weight = torch.cat([self.weights[name] for name in sources[place]])
            if weight.shape == room.shape:
                room.copy_(weight)
            else:
                misfits.append(f"{place} {list(room.shape)} for {list(weight.shape)}")
        _refuse({"places of another shape than their weight": misfits})
        return model.eval()

    def _make_model(self) -> Transformer:
        kinds = {weight.dtype for weight in self.weights.values()}
        if len(kinds) != 1 or not all(kind.is_floating_point for kind in kinds):
            found = ", ".join(sorted(map(str, kinds))) or "none"
            raise ValueError(f"weights must have one floating-point dtype, not {found}")
        # To load must not draw from the random numbers of whoever loads.
        with torch.random.fork_rng(devices=[]):
            model = Transformer(self.config)
        return model.to(next(iter(self.weights.values())))

    def look_at_head(self) -> None:
        """Take from the weights what their config does not say of the head."""
        embedding, head, transform = (
            self._sources(f"{place}.weight")[0]
            for place in ("embedding", "unembedding", "head_transform.0")
        )
        if head in self.weights and embedding in self.weights:
            same = torch.equal(self.weights[head], self.weights[embedding])
            tied = self.config.tie_embeddings and same
            self.config = replace(self.config, tie_embeddings=tied)
        if transform in self.weights:
            self.config = replace(self.config, head="mlm", head_bias=True)

    def _sources(self, place: str) -> list[str]:
        """Return the names of the weights that stand in a place, from top to bottom."""
        pattern = re.sub(r"blocks\.\d+", "blocks.#", place)
        module, _, leaf = pattern.rpartition(".")
        if pattern in self.names:
            theirs = self.names[pattern]
        elif module in self.names:
            theirs = f"{self.names[module]}.{leaf}"
        else:
            return [place]
        if layer := re.search(r"\d+", place):
            theirs = theirs.replace("#", layer[0])
        start, brace, rest = theirs.partition("{")
        parts, _, end = rest.partition("}")
        if not brace:
            return [self._full(theirs)]
        return [self._full(start + part + end) for part in parts.split(",")]

    def _full(self, name: str) -> str:
        return self.base + name if self.base + name in self.weights else name

    def _is_copy(self, name: str) -> bool:
        original = self._full(self.copies.get(name.removeprefix(self.base), ""))
        if name not in self.weights or original not in self.weights:
            return False
        return torch.equal(self.weights[name], self.weights[original])


def _refuse(faults: dict[str, list[str]]) -> None:
    found = [
        f"{what}: {', '.join(sorted(names))}" for what, names in faults.items() if names
    ]
    if found:
        raise ValueError("; ".join(found))


def _theirs(
    model: Any, missing: Iterable[str] = (), strays: Iterable[str] = ()
) -> _Stored:
    """Take apart a Hugging Face model; what its file did not hold is `missing`."""
    own = getattr(model, "config", model)
    config, family = read_config(own), find_family(own)
    given = model.state_dict()
    weights = family.prepare(given)
    base = f"{model.base_model_prefix}."
    stored = _Stored(config, weights, family.names, family.copies, base, set(strays))
    stored.look_at_head()
    # The library fills such weights with random numbers, and only warns.
    for name in family.prepare({name: given[name] for name in missing}):
        del weights[name]
    return stored


def _load_theirs(name: str | Path) -> tuple[Any, set[str], set[str]]:
    """Load a Hugging Face model; return it, what its file lacks, what it has to spare.

    Neither pickles are read nor code: both do whatever their author put there.
    """
    import transformers

    if Path(name).exists() and not list(Path(name).glob("*.safetensors")):
        raise ValueError(f"{name} holds no *.safetensors; pickles are not loaded")
    config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    read_config(config)  # refuse before anything large is fetched
    kind = (config.architectures or ["none"])[0]
    if not hasattr(transformers, kind):
        raise ValueError(f"{name}: architecture {kind!r} is not in transformers")
    try:
        model, report = getattr(transformers, kind).from_pretrained(
            name, dtype="auto", use_safetensors=True, output_loading_info=True
        )
    except (SafetensorError, RuntimeError) as error:  # broken, or of another shape
        raise ValueError(f"the weights of {name} cannot be read: {error}") from error
    return model, report["missing_keys"], report["unexpected_keys"]


def _ours(folder: Path, fields: dict[str, Any]) -> _Stored:
    """Read what `save_pretrained` wrote; `fields` are those of its config."""
    options = {name: value for name, value in fields.items() if name != "model_type"}
    try:
        config = TransformerConfig(**options)
        weights = load_file(folder / WEIGHTS)
    except (TypeError, OSError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no model of ours: {error}") from error
    return _Stored(config, weights)


def _read_fields(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # no file, no text, or no JSON
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold an object, not {type(fields).__name__}")
    return fields
