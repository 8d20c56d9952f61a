"""Averages of weights: a moving one during training, and one of saved files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def moving_average(model: nn.Module, decay: float = 0.999) -> AveragedModel:
    """Return a copy of the model whose weights follow those of the original.

    At each update, which `fit(..., average=...)` makes, a weight becomes decay times
    itself plus (1 - decay) times the original's (Polyak and Juditsky 1992; Izmailov et
    al. 2018 for networks). `.module` is the averaged model. A decay outside [0, 1]
    raises `ValueError`.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1], not {decay}")
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def average_weights(files: Sequence[Path | str]) -> dict[str, Tensor]:
    """Return the mean of the weights in several safetensors files, for one model.

    Vaswani et al. 2017, section 6.1, average the last 5 or 20 checkpoints. The sum is
    in float64, the mean of the files' own type; what is not floating must be equal.
    Files that differ in names, shapes or types raise `ValueError`.
    """
    if not files:
        raise ValueError("there are no files to average")
    first = load_file(files[0])
    sums = {name: tensor.double() for name, tensor in first.items()}
    for path in files[1:]:
        weights = load_file(path)
        if fault := _difference(first, weights):
            raise ValueError(f"{path} does not go with {files[0]}: {fault}")
        for name, tensor in weights.items():
            sums[name] += tensor.double()
    return {
        name: (total / len(files)).to(first[name].dtype)
        if first[name].is_floating_point()
        else first[name]
        for name, total in sums.items()
    }


def _difference(first: dict[str, Tensor], other: dict[str, Tensor]) -> str | None:
    if names := sorted(first.keys() ^ other.keys()):
        return f"only one of them has {', '.join(names)}"
    for name, tensor in first.items():
        forms = [f"{t.dtype} {tuple(t.shape)}" for t in (tensor, other[name])]
        if forms[0] != forms[1]:
            return f"{name} is {forms[0]} and {forms[1]}"
        if not tensor.is_floating_point() and not torch.equal(tensor, other[name]):
            return f"{name} is not floating, and differs"
    return None
