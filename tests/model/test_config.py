"""A config that cannot work is refused when it is made, with the numbers at fault."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from small_models import CHOICES, no_shape_checks, small_config


@pytest.fixture(autouse=True)
def _users_view() -> Iterator[None]:
    with no_shape_checks():
        yield


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[
            ({name: value}, rf"{name} must be at least 1, not {value}")
            for name in ("vocab_size", "d_model", "num_heads", "d_ff", "max_seq_len")
            for value in (0, -3)
        ],
        ({"num_encoder_layers": -1}, r"num_encoder_layers must be at least 0, not -1"),
        ({"num_decoder_layers": -2}, r"num_decoder_layers must be at least 0, not -2"),
        ({"num_decoder_layers": 0}, r"^num_encoder_layers and .* at least one layer$"),
        ({"d_model": 10, "num_heads": 4}, r"d_model=10 cannot .* num_heads=4"),
        ({"head_dim": 0}, r"head_dim must be at least 1, not 0"),
        ({"head_dim": -4}, r"head_dim must be at least 1, not -4"),
        ({"num_kv_heads": 0}, r"num_kv_heads=0 must divide num_heads=2"),
        ({"num_kv_heads": -2}, r"num_kv_heads=-2 must divide num_heads=2"),
        ({"num_kv_heads": 4}, r"num_kv_heads=4 must divide num_heads=2"),
        ({"num_heads": 4, "num_kv_heads": 3}, r"num_kv_heads=3 .* num_heads=4"),
        ({"position": "rotary", "head_dim": 3}, r"rotary .* even, not 3"),
        (
            {"position": "sinusoidal", "d_model": 9, "num_heads": 3},
            r"^sinusoidal positions .* d_model must be even, not 9$",
        ),
        ({"num_segments": -1}, r"num_segments must be at least 0, not -1"),
        (
            {"num_segments": 2, "num_encoder_layers": 1},
            r"num_segments=2: an encoder-decoder has no segments",
        ),
        ({"rotary_base": 1.0}, r"rotary_base must be above 1, not 1\.0"),
        (
            {"relative_buckets": 5},
            r"^relative_buckets must be even and .* not 5 and 128$",
        ),
        ({"relative_buckets": 2}, r"even and at least 4.* not 2 and 128"),
        ({"relative_max_distance": 16}, r"relative_max_distance: not 32 and 16"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), not -0\.1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1\.0"),
        ({"dropout": float("nan")}, r"dropout .* not nan"),
        ({"inner_dropout": 1.5}, r"inner_dropout must be in \[0, 1\), not 1\.5"),
        ({"inner_dropout": "0"}, r"inner_dropout must be of type .*float.*, not '0'"),
        ({"norm_eps": 0.0}, r"norm_eps must be in \(0, 1\), not 0\.0"),
        ({"norm_eps": 1.0}, r"norm_eps must be in \(0, 1\), not 1\.0"),
        ({"norm_eps": float("inf")}, r"norm_eps .* not inf"),
        *[
            ({name: "best"}, rf"{name} must be one of {', '.join(known)}, not 'best'")
            for name, known in CHOICES.items()
        ],
        ({"norm": None}, r"norm must be one of layer, rms, not None"),
        ({"d_model": 8.0}, r"d_model must be of type .*int.*, not 8\.0"),
        ({"d_model": None}, r"d_model must be of type .*int.*, not None"),
        ({"num_heads": True}, r"num_heads must be of type .*int.*, not True"),
        ({"num_kv_heads": "2"}, r"num_kv_heads must be of type int \| None, not '2'"),
        ({"dropout": "0.1"}, r"dropout must be of type .*float.*, not '0\.1'"),
        ({"dropout": False}, r"dropout must be of type .*float.*, not False"),
        ({"bias": 1}, r"bias must be of type .*bool.*, not 1"),
        ({"gated": None}, r"gated must be of type .*bool.*, not None"),
    ],
)
def test_impossible_values_are_refused_by_name(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**options)


@pytest.mark.parametrize(
    "options",
    [
        *[{name: value} for name, known in CHOICES.items() for value in known],
        {"d_model": 7, "num_heads": 2, "head_dim": 3, "position": "none"},
        {"d_model": 9, "num_heads": 3, "position": "learned"},
        {"d_model": 10, "num_heads": 5, "position": "rotary"},
        {"num_heads": 4, "num_kv_heads": 1},
        {"vocab_size": 1, "max_seq_len": 1, "d_ff": 1},
        {"dropout": 0},
        {"dropout": 0.5, "inner_dropout": 0},
        {"rotary_base": 2},
        {"relative_buckets": 4, "relative_max_distance": 3},
        {"num_segments": 2},
    ],
)
def test_possible_values_are_kept(options: dict[str, Any]) -> None:
    config = small_config(**options)
    assert {name: getattr(config, name) for name in options} == options


def test_what_is_not_given_follows_from_what_is() -> None:
    config = small_config(d_model=12, num_heads=3)
    assert (config.kv_heads, config.width_per_head) == (3, 4)
    config = small_config(d_model=12, num_heads=4, num_kv_heads=2, head_dim=5)
    assert (config.kv_heads, config.width_per_head) == (2, 5)
    assert small_config(dropout=0.5).dropout_within == 0.5
    assert small_config(dropout=0.5, inner_dropout=0.25).dropout_within == 0.25
    assert small_config(dropout=0.5, inner_dropout=0.0).dropout_within == 0


def test_a_config_cannot_be_changed_behind_its_checks() -> None:
    config = small_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_heads = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="num_heads=3"):
        dataclasses.replace(config, num_heads=3)


def test_a_numpy_integer_is_refused_rather_than_half_accepted() -> None:
    with pytest.raises(ValueError, match="d_model must be of type"):
        small_config(d_model=np.int64(8))
