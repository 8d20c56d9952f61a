"""Settings: read from a command line, changed, refused by name."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from tfcourse.model.config import TransformerConfig
from tfcourse.recipes.settings import Settings, Training, read_settings
from tfcourse.recipes.task import defaults


@dataclass(frozen=True, kw_only=True)
class Own:
    """A recipe's own keys, one of each kind."""

    word: str = "a"
    whole: int = 3
    real: float = 0.5
    flag: bool = False
    choice: Literal["left", "right"] = "left"
    perhaps: int | None = None


SETTINGS = defaults(
    Own(),
    Training(steps=10),
    d_model=8,
    num_heads=2,
    d_ff=8,
    max_seq_len=4,
    num_decoder_layers=1,
)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("word=b", "word", "b"),
        ("word=", "word", ""),
        ("word=x=y", "word", "x=y"),
        ("word=3", "word", "3"),
        ("whole=-4", "whole", -4),
        ("real=1e-3", "real", 1e-3),
        ("real=2", "real", 2.0),
        ("flag=True", "flag", True),
        ("flag=false", "flag", False),
        ("choice=right", "choice", "right"),
        ("perhaps=none", "perhaps", None),
        ("perhaps=7", "perhaps", 7),
        ("clip=none", "clip", None),
        ("clip=0.5", "clip", 0.5),
        ("num_kv_heads=1", "num_kv_heads", 1),
        ("num_kv_heads=none", "num_kv_heads", None),
        ("norm=rms", "norm", "rms"),
    ],
)
def test_a_value_is_read_as_the_type_of_its_name(
    text: str, name: str, value: Any
) -> None:
    found = read_settings([text], SETTINGS)
    assert found == {name: value}
    assert type(found[name]) is type(value)
    assert SETTINGS.changed(found).to_dict()[name] == value


def test_the_last_of_two_values_counts() -> None:
    assert read_settings(["whole=1", "whole=2"], SETTINGS) == {"whole": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("whole", "--set takes name=value, not 'whole'"),
        ("whole=1.5", "whole must be int, not '1.5'"),
        ("real=x", "real must be float, not 'x'"),
        ("flag=1", "flag must be bool, not '1'"),
        ("choice=up", "choice must be left or right, not 'up'"),
        ("perhaps=x", "perhaps must be int or none, not 'x'"),
        ("norm=batch", "norm must be layer or rms, not 'batch'"),
        ("vocab_size=3", "unknown setting vocab_size; known: word, whole, .*norm"),
        ("steps=0", "steps must be at least 1, not 0"),
        ("patience=0", "patience must be at least 1, not 0"),
        ("lr=0", "lr must be above 0, not 0"),
        ("lr=nan", "lr must be above 0, not nan"),
    ],
)
def test_what_is_no_value_is_refused_with_what_is(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SETTINGS.changed(read_settings([text], SETTINGS))


@pytest.mark.parametrize(
    ("name", "value"),
    [("whole", True), ("flag", 1), ("word", None), ("real", "1"), ("choice", 3)],
)
def test_a_value_of_another_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be "):
        SETTINGS.changed({name: value})


def test_changes_leave_all_else_and_the_original_as_they_were() -> None:
    before = SETTINGS.to_dict()
    changed = SETTINGS.changed({"whole": 4, "lr": 0.25, "dropout": 0.5})
    assert changed.to_dict() == before | {"whole": 4, "lr": 0.25, "dropout": 0.5}
    assert SETTINGS.to_dict() == before
    assert isinstance(changed, Settings)
    assert (changed.data, changed.training.lr) == (Own(whole=4), 0.25)
    assert SETTINGS.changed(changed.to_dict()) == changed


def test_the_model_s_settings_are_all_of_its_config_but_the_vocabulary() -> None:
    config = TransformerConfig(vocab_size=9, **SETTINGS.model)
    assert (config.d_model, config.num_decoder_layers) == (8, 1)
    assert set(SETTINGS.model) == set(vars(config)) - {"vocab_size"}


def test_no_name_stands_for_two_settings() -> None:
    parts = [vars(SETTINGS.data), vars(SETTINGS.training), SETTINGS.model]
    assert sum(map(len, parts)) == len(SETTINGS.to_dict())
