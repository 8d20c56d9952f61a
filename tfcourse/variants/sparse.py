"""Mask rules in which a query sees few keys, so that cost can grow with the length.

The rules have the signature of `tfcourse.model.masks` and are combined with its `both`
and with `either`. A rule alone saves no work: written out it is a mask like any other.
What skips the pairs it forbids is the kernel (`variants.tiles`, `variants.flex`).
"""

from torch import Tensor

from tfcourse.model.masks import MaskRule, sliding_window


def either(first: MaskRule, second: MaskRule) -> MaskRule:
    """Allow what at least one of the two rules allows."""

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return first(batch, head, query, key) | second(batch, head, query, key)

    return rule


def window(radius: int) -> MaskRule:
    """Allow the `radius` nearest slots on either side, and the query's own.

    Source: Beltagy et al. 2020, section 3.1, where 2 · radius is the window's size.
    """
    _check_at_least(0, "radius", radius)

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key).abs() <= radius

    return rule


def global_tokens(count: int) -> MaskRule:
    """Let the first `count` slots see all others and be seen by them.

    Source: Beltagy et al. 2020, section 3.1.
    """
    _check_at_least(1, "count", count)

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query < count) | (key < count)

    return rule


def block_window(size: int, radius: int = 1) -> MaskRule:
    """Cut the slots into blocks of `size`; allow `radius` blocks on either side.

    Whole blocks suit hardware. Source: Zaheer et al. 2020, appendix D.
    """
    _check_at_least(1, "size", size)
    _check_at_least(0, "radius", radius)

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query // size - key // size).abs() <= radius

    return rule


def every(stride: int) -> MaskRule:
    """Allow the query's own slot and every `stride`-th before it."""
    _check_at_least(1, "stride", stride)

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ((query - key) % stride == 0)

    return rule


def strided(stride: int) -> MaskRule:
    """Allow the last `stride` slots, and every `stride`-th before them; causal.

    Two layers then reach every earlier slot. Both sets in each head, where the source
    also gives each its own. Source: Child et al. 2019, section 4.3.
    """
    return either(sliding_window(stride), every(stride))


def longformer(radius: int, count: int) -> MaskRule:
    """Allow a window, and `count` global tokens (Beltagy et al. 2020, figure 2d)."""
    return either(window(radius), global_tokens(count))


def big_bird(size: int, count: int, radius: int = 1) -> MaskRule:
    """Allow a window of blocks, and `count` global blocks; without random pairs.

    Source: Zaheer et al. 2020, section 2, where the global tokens are of the sequence.
    """
    return either(block_window(size, radius), global_tokens(count * size))


def _check_at_least(least: int, name: str, value: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
