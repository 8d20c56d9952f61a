"""Recurrent translation, with the first attention or without."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tfcourse.variants.recurrent import Kind, Logits, State, Tokens, recurrent_layers

Source = Int[Tensor, "batch source"]
Memory = Float[Tensor, "batch source d_model"]
Weights = Float[Tensor, "batch seq source"]


class AdditiveAttention(nn.Module):
    """Weights by the score vᵀ tanh(W s + U h), for a state s and each annotation h.

    Source: Bahdanau et al. 2015, section 3.1 and appendix A.1.2.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.of_state = nn.Linear(d_model, d_model, bias=False)  # W
        self.of_memory = nn.Linear(d_model, d_model, bias=False)  # U
        self.score = nn.Linear(d_model, 1, bias=False)  # v

    def forward(
        self,
        state: Float[Tensor, "batch d_model"],
        memory: Memory,
        valid: Bool[Tensor, "batch source"],
    ) -> Float[Tensor, "batch source"]:
        """Return how much is taken from each place of the source; none from padding."""
        mixed = torch.tanh(self.of_state(state)[:, None] + self.of_memory(memory))
        score = self.score(mixed)[..., 0]
        return score.masked_fill(~valid, -torch.inf).softmax(dim=-1)


class RecurrentTranslator(nn.Module):
    """An encoder, and a decoder that starts from the encoder's last state.

    With attention it also reads, at each token, a mean of the encoder's outputs that
    its own state chooses (Bahdanau et al. 2015, sections 3.1 and 3.2). Without it the
    last state is all that it learns of the source, as in Sutskever et al. 2014; the
    encoder reads both ways here too, so that attention is the only difference.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        d_model: int,
        kind: Kind = "gru",
        attention: bool = True,
        dropout: float = 0.0,
        forget_bias: float | None = None,
    ) -> None:
        super().__init__()
        if d_model % 2:
            raise ValueError(f"d_model={d_model} must be even: two directions share it")
        width = 2 * d_model if attention else d_model
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.dropout = nn.Dropout(dropout)
        self.encoder = recurrent_layers(
            kind, d_model, d_model // 2, forget_bias=forget_bias, bidirectional=True
        )
        self.attention = AdditiveAttention(d_model) if attention else None
        self.decoder = recurrent_layers(kind, width, d_model, forget_bias=forget_bias)
        self.head = nn.Linear(width, vocab_size)

    def forward(
        self, tokens: Tokens, source: Source, *, source_valid: Tensor | None = None
    ) -> Logits:
        """Return the logits of the token after each token.

        `source_valid`, [batch, source], is True at real tokens, which come first in
        each row; padding elsewhere, and rows of nothing else, raise `ValueError`.
        """
        return self._decode(tokens, source, source_valid)[0]

    def alignment(
        self, tokens: Tokens, source: Source, *, source_valid: Tensor | None = None
    ) -> Weights:
        """Return the attention weights that `forward` uses; rows sum to one."""
        weights = self._decode(tokens, source, source_valid)[1]
        if weights is None:
            raise ValueError("this model has attention=False: it aligns nothing")
        return weights

    def _decode(
        self, tokens: Tokens, source: Source, valid: Tensor | None
    ) -> tuple[Logits, Weights | None]:
        valid = torch.ones_like(source, dtype=torch.bool) if valid is None else valid
        memory, state = self._encode(source, valid)
        x = self.dropout(self.embedding(tokens))
        if self.attention is None:
            hidden, _ = self.decoder(x, state)
            return self.head(self.dropout(hidden)), None
        outputs, weights = [], []
        for token in x.split(1, dim=1):
            before = state[0][-1] if isinstance(state, tuple) else state[-1]
            weight = self.attention(before, memory, valid)[:, None]
            context = weight @ memory  # [batch, 1, d_model]
            hidden, state = self.decoder(torch.cat((token, context), dim=-1), state)
            outputs.append(torch.cat((hidden, context), dim=-1))
            weights.append(weight)
        output = self.dropout(torch.cat(outputs, dim=1))
        return self.head(output), torch.cat(weights, dim=1)

    def _encode(self, source: Source, valid: Tensor) -> tuple[Memory, State]:
        """Return an output for each token, and the state to decode from."""
        length = valid.sum(dim=1, keepdim=True)
        first = torch.arange(source.shape[1], device=source.device) < length
        if not valid[:, 0].all() or not torch.equal(first, valid):
            raise ValueError(
                "source_valid must be True at the first tokens of each row, one at "
                f"least, and False at all others, not {valid.tolist()}"
            )
        x = self.dropout(self.embedding(source))
        packed = pack_padded_sequence(x, length[:, 0].cpu(), True, enforce_sorted=False)
        output, state = self.encoder(packed)
        memory, _ = pad_packed_sequence(output, True, total_length=source.shape[1])
        if isinstance(state, tuple):
            return memory, (_join(state[0]), _join(state[1]))
        return memory, _join(state)


def _join(ends: Float[Tensor, "2 batch half"]) -> Float[Tensor, "1 batch d_model"]:
    """Put the last states of the two directions side by side."""
    return torch.cat(ends.split(1), dim=-1)
