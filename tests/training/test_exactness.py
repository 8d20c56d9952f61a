"""`fit` is, bit for bit, the loop that one would write by hand."""

import math
from functools import partial
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from small_models import small_model
from torch import Tensor, nn

from tfcourse.data.pairs import Batches, translation_batch
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.training.loop import History, fit
from tfcourse.training.schedules import cosine

TOKENIZER = Tokenizer.from_texts(["0123456"])
TEXTS = [f"{n % 7}{n % 5}{n % 3}"[: 1 + n % 3] for n in range(40)]
BATCHES = Batches(
    [(text, text) for text in TEXTS], TOKENIZER, translation_batch, size=8, epochs=4
)
STEPS = 17


def by_hand(model: nn.Module, seed: int) -> tuple[list[float], list[float]]:
    """Train without anything of `tfcourse.training`; return losses and norms."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.01},
            {"params": vectors, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )
    losses, norms = [], []
    torch.manual_seed(seed)
    model.train()
    for step, batch in enumerate(islice(BATCHES, STEPS), start=1):
        done = max(0.0, (step - 4) / (STEPS - 4))
        factor = min(min(1.0, step / 4), (1 + math.cos(math.pi * done)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * factor
        logits = model(batch.tokens, batch.source, source_mask=batch.source_mask)
        total = F.cross_entropy(
            logits.flatten(0, 1), batch.target.flatten(), reduction="sum"
        )
        loss = total / (batch.target != -100).sum()
        optimizer.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def trained(model: nn.Module, seed: int) -> History:
    schedule = partial(cosine, total=STEPS, warmup=4)
    return fit(model, BATCHES, steps=STEPS, lr=1e-2, schedule=schedule, seed=seed)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_losses_norms_and_weights_are_those_of_a_plain_loop(dropout: float) -> None:
    ours = small_model("encoder-decoder", dropout=dropout)
    theirs = small_model("encoder-decoder", dropout=dropout)
    theirs.load_state_dict(ours.state_dict())
    losses, norms = by_hand(theirs, seed=5)
    history = trained(ours, seed=5)
    assert history.losses == losses
    assert history.gradient_norms == norms
    assert all(map(torch.equal, weights(ours), weights(theirs)))
    assert len(set(losses)) == STEPS
