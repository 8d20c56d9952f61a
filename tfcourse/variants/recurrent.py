"""What came before the Transformer: recurrent networks as language models."""

from collections.abc import Callable
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

Kind = Literal["rnn", "lstm", "gru"]
LAYERS: dict[str, Callable[..., nn.RNNBase]] = {
    "rnn": nn.RNN,
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}
Tokens = Int[Tensor, "batch seq"]
Logits = Float[Tensor, "batch seq vocab"]
# Of each layer, [layers, batch, d_model]: of an LSTM the hidden state and the cell.
State = Tensor | tuple[Tensor, Tensor]


def recurrent_layers(
    kind: Kind,
    input_size: int,
    d_model: int,
    *,
    forget_bias: float | None,
    **options: Any,
) -> nn.RNNBase:
    """Build the library's layers, [batch, seq, input_size] to [batch, seq, d_model].

    `forget_bias` is what an LSTM's forget gates start with: 1 makes it remember at
    first (Jozefowicz et al. 2015, section 2.2). Other kinds have none, and raise
    `ValueError` if it is given. The options are those of the library's layers.
    """
    if kind not in LAYERS:
        raise ValueError(f"kind must be one of {', '.join(LAYERS)}, not {kind!r}")
    if forget_bias is not None and kind != "lstm":
        raise ValueError(f"only an lstm has forget gates: no forget_bias for {kind!r}")
    layers = LAYERS[kind](input_size, d_model, batch_first=True, **options)
    if forget_bias is not None:
        for name, weight in layers.named_parameters():
            if "bias" in name:  # two that are added; gates: input, forget, cell, output
                start = forget_bias if "bias_ih" in name else 0.0
                nn.init.constant_(weight[d_model : 2 * d_model], start)
    return layers


class RecurrentLM(nn.Module):
    """A recurrent language model: its state is all that it knows of earlier tokens.

    Dropout acts on what goes into and out of the layers (Zaremba et al. 2014). Sources:
    Elman 1990 (rnn), Hochreiter & Schmidhuber 1997 (lstm), Cho et al. 2014 (gru).
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        d_model: int,
        kind: Kind = "lstm",
        num_layers: int = 1,
        dropout: float = 0.0,
        forget_bias: float | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.dropout = nn.Dropout(dropout)
        self.layers = recurrent_layers(
            kind, d_model, d_model, forget_bias=forget_bias, num_layers=num_layers
        )
        self.head = nn.Linear(d_model, vocab_size)

    def forward(self, tokens: Tokens) -> Logits:
        """Return the logits of the token after each token."""
        return self.step(tokens)[0]

    def step(self, tokens: Tokens, state: State | None = None) -> tuple[Logits, State]:
        """Read further tokens, one or more; return their logits and the new state."""
        hidden, state = self.layers(self.dropout(self.embedding(tokens)), state)
        return self.head(self.dropout(hidden)), state
