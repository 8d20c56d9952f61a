"""Each planted bug keeps the shape, is named by its probe and is gone afterwards."""

import pytest
import torch

from tfcourse.course import broken
from tfcourse.model.config import TransformerConfig
from tfcourse.model.masks import padding
from tfcourse.model.transformer import Transformer
from tfcourse.probes import assert_causal

BUGS = [broken.softmax_over_queries, broken.heads_cut_across_positions]
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=10,
        d_model=16,
        num_heads=2,
        d_ff=32,
        max_seq_len=8,
        num_decoder_layers=2,
    )
    return Transformer(config).eval()


@pytest.mark.parametrize("bug", BUGS)
def test_the_probe_for_causality_names_the_bug(bug, decoder):
    with bug(), pytest.raises(AssertionError, match="the model looks ahead"):
        assert_causal(decoder, TOKENS)


@pytest.mark.parametrize("bug", BUGS)
def test_shapes_show_nothing(bug, decoder):
    healthy = decoder(TOKENS)
    with bug():
        broken_output = decoder(TOKENS)
    assert broken_output.shape == healthy.shape
    assert broken_output.isfinite().all()
    assert not torch.allclose(broken_output, healthy, atol=1e-3)


@pytest.mark.parametrize("bug", BUGS)
def test_the_bug_is_undone_even_after_an_error(bug, decoder):
    healthy = decoder(TOKENS)
    with pytest.raises(KeyError), bug():
        raise KeyError
    assert torch.equal(decoder(TOKENS), healthy)


def test_softmax_over_queries_leaks_past_a_padding_mask(decoder):
    valid = torch.ones_like(TOKENS, dtype=torch.bool)
    valid[:, -1] = False
    with broken.softmax_over_queries():
        before = decoder(TOKENS, mask=padding(valid))
        changed = TOKENS.clone()
        changed[:, -1] = 0
        after = decoder(changed, mask=padding(valid))
    # The hidden token is no key, but as a query it still takes a share of each key.
    assert not torch.allclose(before[:, 0], after[:, 0], atol=1e-6)
