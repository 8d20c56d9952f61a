"""Mask rules: True means *may attend*, and a table of the wrong shape is refused."""

from collections.abc import Callable

import pytest
import torch
from small_models import no_shape_checks
from torch import Tensor

from tfcourse.model.masks import (
    MaskRule,
    both,
    causal,
    dense,
    padding,
    same_document,
    sliding_window,
)

VALID = torch.tensor([[True, True, True, False], [False, True, True, True]])


def written(rule: MaskRule, start: int = 0, keys: int = 4) -> list[str]:
    """Return one string a row of the first head, "x.": x where attention is allowed."""
    query, key = torch.arange(start, keys), torch.arange(keys)
    mask = dense(rule, batch=2, query=query, key=key)[:, 0]
    rows = mask.expand(2, len(query), keys).flatten(0, 1)
    return ["".join(".x"[int(cell)] for cell in row) for row in rows]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: causal, 2 * ["x...", "xx..", "xxx.", "xxxx"]),
        (lambda: sliding_window(2), 2 * ["x...", "xx..", ".xx.", "..xx"]),
        (lambda: sliding_window(1), 2 * ["x...", ".x..", "..x.", "...x"]),
        (lambda: padding(VALID), 4 * ["xxx."] + 4 * [".xxx"]),
        (
            lambda: same_document(torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])),
            ["xx..", "xx..", "..xx", "..xx", "x...", ".xxx", ".xxx", ".xxx"],
        ),
        (
            lambda: both(causal, padding(VALID)),
            ["x...", "xx..", "xxx.", "xxx.", "....", ".x..", ".xx.", ".xxx"],
        ),
    ],
)
def test_rules_allow_what_they_say(
    make: Callable[[], MaskRule], expected: list[str]
) -> None:
    assert written(make()) == expected


@pytest.mark.parametrize(
    "rule", [causal, sliding_window(3), padding(VALID), same_document(VALID.long())]
)
def test_a_chunk_sees_the_last_rows_of_the_whole_mask(rule: MaskRule) -> None:
    whole = torch.tensor([[c == "x" for c in row] for row in written(rule)])
    chunk = torch.tensor([[c == "x" for c in row] for row in written(rule, start=2)])
    assert torch.equal(chunk.view(2, 2, 4), whole.view(2, 4, 4)[:, 2:])


def test_both_with_nothing_is_the_other() -> None:
    assert both(None, causal) is causal
    assert both(causal, None) is causal
    assert both(None, None) is None


def keys_below_two(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return key < 2


def head_sees_row(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return head == batch


@pytest.mark.parametrize(
    ("rule", "shape"),
    [
        (keys_below_two, (1, 1, 1, 4)),
        (causal, (1, 1, 3, 4)),
        (padding(VALID), (2, 1, 1, 4)),
        (same_document(VALID.long()), (2, 1, 3, 4)),
        (head_sees_row, (2, 5, 1, 1)),
    ],
)
def test_a_rule_written_out_has_four_axes(
    rule: MaskRule, shape: tuple[int, ...]
) -> None:
    mask = dense(rule, batch=2, heads=5, query=torch.arange(3), key=torch.arange(4))
    assert mask.shape == shape


def test_a_rule_is_written_out_for_one_head_unless_more_are_asked_for() -> None:
    slots = torch.arange(1)
    assert dense(head_sees_row, batch=2, query=slots, key=slots).shape == (2, 1, 1, 1)


def test_a_rule_may_differ_between_heads() -> None:
    slots = torch.arange(1)
    mask = dense(head_sees_row, batch=2, heads=2, query=slots, key=slots)
    assert torch.equal(mask[:, :, 0, 0], torch.eye(2, dtype=torch.bool))


@pytest.mark.parametrize("rows_and_keys", [(2, 5), (3, 4), (1, 4)])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: padding(VALID), "^padding mask: the shape"),
        (lambda: same_document(VALID.long()), "^document numbers: the shape"),
    ],
)
def test_a_table_of_another_shape_is_refused(
    make: Callable[[], MaskRule], name: str, rows_and_keys: tuple[int, int]
) -> None:
    rows, keys = rows_and_keys
    slots = torch.arange(keys)
    message = rf"{name} is \(2, 4\), but there are {rows} rows and {keys} keys"
    with pytest.raises(ValueError, match=message):
        dense(make(), batch=rows, query=slots, key=slots)


@pytest.mark.parametrize("valid", [VALID.long(), VALID[0], VALID[None]])
def test_padding_takes_a_boolean_table_only(valid: Tensor) -> None:
    message = rf"^padding takes a boolean.* True at real tokens, not {valid.dtype}"
    with no_shape_checks(), pytest.raises(ValueError, match=message):
        padding(valid)


def test_a_rule_must_return_booleans() -> None:
    slots = torch.arange(3)
    message = r"booleans, not torch\.int64"
    with no_shape_checks(), pytest.raises(ValueError, match=message):
        dense(lambda b, h, q, k: k - q, batch=1, query=slots, key=slots)


@pytest.mark.parametrize("size", [0, -1])
def test_a_window_needs_a_size(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        sliding_window(size)


def test_rules_work_on_scalars_as_flex_attention_calls_them() -> None:
    one, two = torch.tensor(1), torch.tensor(2)
    for rule in (causal, padding(VALID), same_document(VALID.long())):
        assert rule(one, one, two, one).item() is True
