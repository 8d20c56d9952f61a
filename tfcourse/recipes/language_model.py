"""The recipe of a language model: any text, by characters or by BPE."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
import torch.nn.functional as F

from tfcourse.data.bundled import reference_text
from tfcourse.data.datasets import tiny_shakespeare
from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.packed import PackedRows, pack, packed_batch
from tfcourse.data.pairs import IGNORE, Batches
from tfcourse.data.tokenizers import REPLACEMENT, AnyTokenizer, Tokenizer
from tfcourse.generation import Choose, stream
from tfcourse.model.config import TransformerConfig
from tfcourse.model.init import init_scaled_normal
from tfcourse.model.transformer import Transformer
from tfcourse.recipes.settings import Settings, Training
from tfcourse.recipes.task import Recipe, Task, defaults, for_steps
from tfcourse.training.history import Best
from tfcourse.training.mode import mode
from tfcourse.training.scores import Score, mean_score


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text to learn to go on with.

    `text` is "reference", Python's language reference; "shakespeare", which is
    downloaded; or the path of a file, whose last tenth is then for testing. `bpe_size`
    is the vocabulary where `tokens` is bpe.
    """

    text: str = "reference"
    tokens: Literal["character", "bpe"] = "character"
    bpe_size: int = 2000


def language_model_task(settings: Settings, tokenizer: AnyTokenizer | None) -> Task:
    """Lay the documents end to end, in rows of as many tokens as the model takes."""
    data: Text = settings.data
    training = settings.training
    train, look, test = read_text(data.text, training.seed)
    tokens = tokenizer or _learn(data, train)
    length = settings.model["max_seq_len"]

    def batches() -> Batches:
        once = in_rows(train, tokens, length, training)
        return for_steps(once, training.steps)

    def loss(model: Transformer, texts: list[str]) -> Score:
        return loss_per_token(model, in_rows(texts, tokens, length, training))

    return Task(
        tokens,
        batches,
        lambda model: loss(model, look).value,
        Best(lowest=True, patience=training.patience),
        lambda model: [loss(model, test)],
    )


def read_text(name: str, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Return documents to train on, to look at and to test on."""
    if name == "reference":
        texts = reference_text(test=8, seed=seed)
        return texts.train, texts.test[:4], texts.test[4:]
    if name == "shakespeare":
        parts = tiny_shakespeare()
        train, test = parts["train"], parts["val"]
    else:
        train, test = _cut(_read_file(Path(name)), 0.9)
    train, look = _cut(train, 0.95)
    return [train], [look], [test]


def in_rows(
    texts: list[str], tokenizer: AnyTokenizer, length: int, training: Training
) -> Batches:
    """Return batches of rows of `length` tokens, on disk while they are used."""
    folder = TemporaryDirectory(prefix="tfcourse-")
    path = Path(folder.name, "tokens.npy")
    pack(texts, tokenizer, path)
    rows = PackedRows(path, length)
    weakref.finalize(rows, folder.cleanup)
    return Batches(
        rows, tokenizer, make=packed_batch, size=training.batch, seed=training.seed
    )


@torch.no_grad()
def loss_per_token(model: Transformer, batches: Batches) -> Score:
    """Return the mean loss of each row's tokens, in nats, over all rows."""
    device = next(model.parameters()).device
    sums, count = [], 0
    with mode(model, training=False):
        for batch in batches:
            here = batch.to(device)
            logits = model(here.tokens, mask=here.mask, position=here.position)
            each = F.cross_entropy(logits.mT, here.target, reduction="none")
            sums += each.sum(1).tolist()  # 0 where nothing is asked
            count += int((here.target != IGNORE).sum())
    # A row's sum over the mean row's count: their mean is that of all tokens.
    rows = [total * len(sums) / count for total in sums]
    return mean_score("loss", rows, f"nats a token, {count} tokens")


def build_language_model(config: TransformerConfig, _: Settings) -> Transformer:
    """Return a model that begins as GPT-2 does (Radford et al. 2019, section 2.3)."""
    model = Transformer(config)
    init_scaled_normal(model)
    return model


def complete(
    model: Transformer, tokenizer: AnyTokenizer, prompt: str, count: int, choose: Choose
) -> Iterator[str]:
    """Yield how the text goes on: `count` tokens, or up to the end of a document.

    Where the model's room is full, the first half of what it has read is forgotten.
    """
    device = next(model.parameters()).device
    room = model.config.max_seq_len
    ids = [tokenizer.start, *tokenizer.encode(prompt)]
    written = tokenizer.decode(ids)
    stop = len(ids) + count
    while len(ids) < stop:
        read = ids if len(ids) < room else ids[-(room // 2) :]
        new = min(room - len(read), stop - len(ids))
        tokens = torch.tensor([read], device=device)
        for token in stream(model, tokens, max_new_tokens=new, choose=choose):
            ids.append(int(token))
            if ids[-1] == tokenizer.stop:
                return
            # As a whole, since a character may be of several tokens.
            text = tokenizer.decode(ids)
            if not text.endswith(REPLACEMENT):
                yield text[len(written) :]
                written = text


def _learn(data: Text, texts: list[str]) -> AnyTokenizer:
    if data.tokens == "bpe":
        return FastBPE.from_texts(texts, data.bpe_size)
    return Tokenizer.from_texts(texts, unit="character")


def _cut(text: str, share: float) -> tuple[str, str]:
    place = int(share * len(text))
    return text[:place], text[place:]


def _read_file(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ValueError(
            f"text must be reference, shakespeare or a file, not {str(path)!r}: "
            f"{error.strerror}"
        ) from error


# The size, batch and steps of nanoGPT's example for a CPU (Karpathy 2022). Rotary
# positions and three times its rate: 1.866 on Shakespeare, where 1.88 was published.
LANGUAGE_MODEL = Recipe(
    "a text, token by token; some minutes on two cores",
    defaults(
        Text(),
        Training(
            steps=2000,
            batch=12,
            lr=3e-3,
            beta2=0.99,
            warmup=100,
            weight_decay=0.1,
            evaluate_every=500,
            checkpoint_every=500,
        ),
        d_model=128,
        num_heads=4,
        d_ff=512,
        max_seq_len=64,
        num_decoder_layers=4,
        position="rotary",
        activation="gelu",
        bias=False,
        scale_embedding=False,
    ),
    language_model_task,
    build=build_language_model,
    complete=complete,
)
