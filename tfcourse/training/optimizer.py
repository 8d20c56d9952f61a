"""The optimizer: AdamW, with weight decay on matrices only."""

from torch import nn
from torch.optim import AdamW

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
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameters that require a gradient")
    groups = [
        {
            "params": [p for p in parameters if p.dim() >= 2],
            "weight_decay": weight_decay,
        },
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in FUSED and p.is_floating_point() for p in parameters)
    return AdamW([g for g in groups if g["params"]], lr=lr, betas=betas, fused=fused)
