"""The style is set on request only, and heat maps refuse what they cannot show."""

from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from tfcourse.course import plots


@pytest.fixture(autouse=True)
def _styled() -> Iterator[None]:
    with matplotlib.rc_context():
        plots.use_style()
        yield


def test_the_style_is_set_by_use_style_only() -> None:
    assert matplotlib.rcParams["image.cmap"] == "tf_heat"
    assert not matplotlib.rcParams["axes.spines.top"]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        plots.line(plots.figure()[1], [0, 1], [0, 1], "blue")
        assert matplotlib.rcParams["image.cmap"] == "viridis"
        plots.use_style()
        assert matplotlib.rcParams["image.cmap"] == "tf_heat"
        assert matplotlib.colormaps["tf_diverge"](0.5)[:3] == (1, 1, 1)


def luminance(color: object) -> float:
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in to_rgb(color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("name", plots.SERIES)
def test_lines_have_3_to_1_and_words_4_5_to_1_on_white(name: str) -> None:
    series = plots.SERIES[name]
    assert 1.05 / (luminance(series.color) + 0.05) >= 3
    assert 1.05 / (luminance(series.text) + 0.05) >= 4.5


def test_the_heat_map_darkens_in_even_steps() -> None:
    values = [luminance(plots.HEAT(x)[:3]) for x in np.linspace(0, 1, 21)]
    assert values == sorted(values, reverse=True)
    assert (values[0], values[-1] < 0.05) == (pytest.approx(1), True)


def test_series_differ_without_colour() -> None:
    dashes = [str(series.dashes) for series in plots.SERIES.values()]
    assert len(set(dashes)) == len(plots.SERIES)


def test_a_line_has_the_dashes_and_marker_of_its_colour() -> None:
    _, ax = plots.figure()
    plots.line(ax, torch.arange(3), torch.ones(3, requires_grad=True), "orange")
    (drawn,) = ax.lines
    assert (drawn.get_color(), drawn.get_linestyle()) == ("#d05a00", "--")
    assert drawn.get_marker() == "s"
    assert drawn.get_ydata().tolist() == [1, 1, 1]


def test_a_label_is_drawn_in_the_darker_shade() -> None:
    _, ax = plots.figure()
    plots.label(ax, 1, 2, "with", "orange", ha="right")
    (text,) = ax.texts
    assert (text.get_color(), text.get_ha()) == ("#a84a00", "right")


def test_unknown_colours_and_wide_figures_are_refused() -> None:
    _, ax = plots.figure()
    with pytest.raises(ValueError, match="unknown colour 'red'; known: blue, orange"):
        plots.line(ax, [0], [0], "red")
    with pytest.raises(ValueError, match=r"at most 5\.4 inches wide, got 6"):
        plots.figure(6)


def test_weights_are_drawn_queries_down_keys_across_from_0_to_1() -> None:
    figure, ax = plots.figure(4.4, 3.7)
    weights = torch.tensor([[0.25, 0.75], [0.4, 0.6], [0.5, 0.5]])
    plots.heatmap(ax, weights, ["a", "b", "c"], ["x", "y"])
    (image,) = ax.images
    assert image.get_array().tolist() == weights.double().tolist()
    assert image.get_clim() == (0, 1)
    assert image.get_cmap().name == "tf_heat"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("key", "query")
    assert figure.axes[1].get_ylabel() == "attention weight"


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (torch.ones(3, 2), r"shape \(3, 2\) does not fit 2 rows and 2 columns"),
        (torch.full((2, 2), 1.5), "weights lie between 0 and 1, got 1.5 to 1.5"),
        (torch.full((2, 2), -0.1), "weights lie between 0 and 1"),
        (torch.full((2, 2), torch.nan), "weights lie between 0 and 1"),
    ],
)
def test_what_is_no_map_of_weights_is_refused(weights: torch.Tensor, said: str) -> None:
    _, ax = plots.figure(4.4, 3.7)
    with pytest.raises(ValueError, match=said):
        plots.heatmap(ax, weights, ["a", "b"], ["x", "y"])


def test_differences_are_white_at_zero() -> None:
    _, ax = plots.figure(4.4, 3.7)
    plots.difference(ax, [[0.0, -3.0]], ["a"], ["x", "y"], quantity="change")
    (image,) = ax.images
    assert image.get_clim() == (-3, 3)
    assert image.get_cmap()(image.norm(0.0))[:3] == (1, 1, 1)
