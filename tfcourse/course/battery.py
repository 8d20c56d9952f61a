"""The battery: every probe, run on small standard models in a fraction of a second.

Each check makes its model anew, so that a fault planted before the call is in it; all
weights are random and none is 0 or 1, which would hide faults.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tfcourse import probes
from tfcourse.course.reference import Reference
from tfcourse.data import pairs
from tfcourse.data.pairs import Batch
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.generation import beam_search, generate, greedy
from tfcourse.model import masks
from tfcourse.model.attention import record_attention
from tfcourse.model.cache import KVCache, StaticKVCache
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer
from tfcourse.training import step

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
SOURCE = torch.tensor([[2, 7, 1, 8, 3], [1, 4, 6, 9, 5]])
DOCUMENT = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 2, 2]])
SEGMENT = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]])

VASWANI = TransformerConfig(
    vocab_size=12,
    d_model=8,
    num_heads=2,
    d_ff=12,
    max_seq_len=12,
    num_encoder_layers=1,
    num_decoder_layers=2,
    norm_order="post",
)
GPT = replace(
    VASWANI,
    num_encoder_layers=0,
    position="learned",
    norm_order="pre",
    activation="gelu_tanh",
    scale_embedding=False,
)
BERT = replace(
    VASWANI,
    num_decoder_layers=0,
    position="learned",
    activation="gelu",
    scale_embedding=False,
    embedding_norm=True,
    num_segments=2,
    head="mlm",
    head_bias=True,
)
LLAMA = replace(
    GPT,
    d_model=16,
    num_heads=4,
    num_kv_heads=2,
    position="rotary",
    norm="rms",
    activation="silu",
    gated=True,
    bias=False,
    tie_embeddings=False,
)
T5 = replace(
    VASWANI,
    position="relative",
    relative_buckets=8,
    relative_max_distance=6,
    norm="rms",
    norm_order="pre",
    activation="gelu_tanh",
    gated=True,
    bias=False,
    scale_scores=False,
    scale_embedding=False,
    scale_logits=True,
)


def battery() -> dict[str, Callable[[], float]]:
    """Return the checks by name; one that fails raises `AssertionError`.

    Else it returns what its probe does, in most cases the largest difference seen.
    """
    return {
        "causal": _causal,
        "causal in training": _causal_in_training,
        "padding": _padding,
        "padding of the source": _padding_of_the_source,
        "prompts padded on the left": _prompts_padded_on_the_left,
        "packed documents": _packed_documents,
        "rows apart": _rows_apart,
        "order seen": _order_seen,
        "order unseen without positions": _order_unseen,
        "deterministic": _deterministic,
        "cache": _cache,
        "static cache": _static_cache,
        "beams with a cache": _beams,
        "recorded weights": _recorded_weights,
        "recording changes nothing": _recording,
        "tied head": _tied_head,
        "targets shifted": _targets_shifted,
        "accumulation": _accumulation,
        "padding in the loss": _padding_in_the_loss,
        "2017 equals torch.nn": lambda: _by_torch(VASWANI, TOKENS, SOURCE),
        "GPT equals torch.nn": lambda: _by_torch(GPT, TOKENS),
        "BERT equals torch.nn": lambda: _by_torch(BERT, TOKENS, None, SEGMENT),
        "Llama equals its formulas": lambda: _by_formula(LLAMA, TOKENS),
        "T5 equals its formulas": lambda: _by_formula(T5, TOKENS, SOURCE),
    }


def standard_model(config: TransformerConfig) -> Transformer:
    """Return a model in eval mode whose weights, always the same, are all random.

    In float64, so that no difference is one of rounding.
    """
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(0)
        model = Transformer(config)
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.3)
    return model.double().eval()


# ------------------------------------------------------------- what may see what


def _causal() -> float:
    return probes.assert_causal(standard_model(GPT), TOKENS)


def _causal_in_training() -> float:
    model = standard_model(replace(GPT, dropout=0.1)).train()
    return probes.assert_causal(model, TOKENS)


def _padding() -> float:
    model = standard_model(BERT)
    return probes.assert_padding_invariant(
        lambda tokens, valid: model(tokens, mask=masks.padding(valid)), TOKENS
    )


def _padding_of_the_source() -> float:
    model = standard_model(VASWANI)

    def run(source: Tensor, valid: Tensor) -> Tensor:
        tokens = TOKENS[:1].expand(len(source), -1)
        return model(tokens, source, source_mask=masks.padding(valid))

    return probes.assert_padding_invariant(run, SOURCE, per_token=False)


def _prompts_padded_on_the_left() -> float:
    """Compare the logits from which `generate` chooses, prompts together and alone."""
    model = standard_model(GPT)

    def run(prompts: Tensor, valid: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def choose(logits: Tensor) -> Tensor:
            seen.append(logits)
            return greedy(logits)

        generate(model, prompts, max_new_tokens=3, prompt_mask=valid, choose=choose)
        return torch.stack(seen, dim=1)

    return probes.assert_padding_invariant(run, TOKENS, side="left", per_token=False)


def _packed_documents() -> float:
    model = standard_model(GPT)

    def run(tokens: Tensor, document: Tensor) -> Tensor:
        same = document[:, :, None] == document[:, None, :]
        position = same.tril().sum(-1) - 1  # how many of the document came before
        rule = masks.same_document(document)
        return model(tokens, mask=rule, position=position)

    return probes.assert_documents_apart(run, TOKENS, DOCUMENT)


def _rows_apart() -> float:
    return probes.assert_rows_independent(standard_model(GPT), TOKENS)


def _order_seen() -> float:
    return probes.assert_order_seen(standard_model(BERT), TOKENS)


def _order_unseen() -> float:
    model = standard_model(replace(BERT, position="none"))
    return probes.assert_permutation_equivariant(model, TOKENS)


def _deterministic() -> float:
    model = standard_model(replace(GPT, dropout=0.1))
    return probes.assert_deterministic(model, TOKENS)


# -------------------------------------------------------------------- generation


def _cache() -> float:
    model = standard_model(GPT)
    return probes.assert_cache_equals_full(
        lambda tokens, cache: model(tokens, cache=cache), TOKENS, new_cache=KVCache
    )


def _static_cache() -> float:
    model = standard_model(LLAMA)
    return probes.assert_cache_equals_full(
        lambda tokens, cache: model(tokens, cache=cache),
        TOKENS,
        new_cache=lambda: StaticKVCache(
            LLAMA, batch=len(TOKENS), capacity=9, dtype=torch.float64
        ),
    )


def _beams() -> float:
    """Compare the scores of the best beams: those of other beams would differ."""
    model = standard_model(VASWANI)

    def scores(use_cache: bool) -> Tensor:
        _, score = beam_search(
            model,
            TOKENS.view(4, 3),
            source=SOURCE.repeat(2, 1),
            max_new_tokens=6,
            num_beams=3,
            stop_token=0,
            use_cache=use_cache,
        )
        return score

    return probes.assert_matches_reference(lambda: scores(True), lambda: scores(False))


# --------------------------------------------------- weights, head, targets, loss


def _recorded_weights() -> float:
    """Padded on the left, so that the first query may attend to nothing."""
    model = standard_model(GPT)
    valid = torch.ones_like(TOKENS, dtype=torch.bool)
    valid[:, 0] = False
    with torch.no_grad(), record_attention(model) as weights:
        model(TOKENS, mask=masks.padding(valid))
    allowed = torch.ones(6, 6, dtype=torch.bool).tril() & valid[:, None, None]
    return max(
        probes.assert_weights_are_distributions(layer, allowed)
        for layer in weights.values()
    )


def _recording() -> float:
    model = standard_model(T5)

    def recorded(tokens: Tensor, source: Tensor) -> Tensor:
        with record_attention(model):
            return model(tokens, source)

    return probes.assert_matches_reference(recorded, model, TOKENS, SOURCE)


def _tied_head() -> float:
    model = standard_model(GPT)
    return probes.assert_tied(model, model.embedding.weight, TOKENS)


def _text_batch(*texts: str) -> Batch:
    return pairs.text_batch(texts, Tokenizer.from_texts(["1 2345"]))


def _targets_shifted() -> float:
    batch = _text_batch("12345", "31")
    return float(probes.assert_targets_shifted(batch.tokens, batch.target))


class _Bigrams(nn.Module):
    """A model that sees one token at a time: nothing but the loss can be wrong."""

    def forward(self, tokens: Tensor, *args: Any, **options: Any) -> Tensor:
        """Return logits that depend on the token at each place alone."""
        return (tokens[..., None] + torch.arange(12.0)).sin()


def _accumulation() -> float:
    """Cut a batch, with its padding, into rows of 6 and of 3 targets."""
    whole = _text_batch("12345", "31")
    rows = [Batch(whole.tokens[i : i + 1], whole.target[i : i + 1]) for i in range(2)]
    return probes.assert_accumulation_equals_batch(
        lambda batch: step.batch_loss(_Bigrams(), batch), whole, rows
    )


def _padding_in_the_loss() -> float:
    """Compare a row of a padded batch with the same row alone, without padding."""
    padded, alone = _text_batch("12345", "31"), _text_batch("31")
    row = Batch(padded.tokens[1:], padded.target[1:])
    return probes.assert_accumulation_equals_batch(
        lambda batch: step.batch_loss(_Bigrams(), batch), row, [alone]
    )


# --------------------------------------------------------------------- reference


def _by_torch(config: TransformerConfig, *inputs: Tensor | None) -> float:
    model = standard_model(config)
    reference = Reference(config, model.state_dict()).by_torch

    def ours(
        tokens: Tensor, source: Tensor | None = None, segment: Tensor | None = None
    ) -> Tensor:
        return model(tokens, source, segment=segment)

    return probes.assert_matches_reference(ours, reference, *inputs)


def _by_formula(config: TransformerConfig, *inputs: Tensor) -> float:
    model = standard_model(config)
    reference = Reference(config, model.state_dict()).by_formula
    return probes.assert_matches_reference(model, reference, *inputs)
