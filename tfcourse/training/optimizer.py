"""The optimizers: AdamW and SGD, with weight decay on matrices only."""

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW

FUSED = ("cpu", "cuda", "mps", "xpu")  # devices with a kernel for the whole update


def adamw(
    model: nn.Module,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.98),
    weight_decay: float = 0.01,
) -> AdamW:
    """Return AdamW in two groups: matrices are decayed, norms and biases are not.

    A decay to 0 would switch off a norm's gain, and a bias costs no capacity. The betas
    are those of Vaswani et al. 2017, section 5.3; decay apart from the gradient is
    Loshchilov and Hutter 2019. A model with nothing to train raises `ValueError`.
    """
    groups = _decay_groups(model, weight_decay)
    parameters = [p for group in groups for p in group["params"]]
    fused = all(p.device.type in FUSED and p.is_floating_point() for p in parameters)
    return AdamW(groups, lr=lr, betas=betas, fused=fused)


def sgd(
    model: nn.Module,
    *,
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> SGD:
    """Return stochastic gradient descent with momentum, in the groups of `adamw`.

    The decay is part of the gradient, and so of the momentum: PyTorch's, and not that
    of `adamw`. Momentum: Polyak 1964; Nesterov's: Sutskever et al. 2013. Without
    momentum, nesterov raises `ValueError`, as does a model with nothing to train.
    """
    groups = _decay_groups(model, weight_decay)
    return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameters that require a gradient")
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
