import numpy as np
import pytest
from matplotlib.colors import same_color
from numpy.testing import assert_array_equal

from src.visualizations.curves import (
    MAX_INSIDE,
    Curve,
    Limits,
    draw_curves,
    join_curves,
    panel_height,
    robust_limits,
)
from src.visualizations.figures import new_figure, save_figure, style_of

NAN, INF = float("nan"), float("inf")
FALLING = [2.3, 0.9, 0.5, 0.45, 0.42, 0.41, 0.40, 0.39]


def curve(*values, first=0):
    return Curve(np.arange(first, first + len(values), dtype=float), np.array(values, dtype=float))


def draw(curves):
    axes = new_figure(5, 4).subplots()
    draw_curves(axes, curves)
    return axes


def marks(axes):
    """Place and text of each mark at the edge."""
    return [(text.xy[0], text.get_text()) for text in axes.texts]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [NAN, NAN],
        [1.0],
        [0.4, 600.0],  # either could be the odd one
        [0.5, 0.5, 0.5, 0.5],
        [0.5, 0.5, 0.5, 0.5, 0.6],
        FALLING,  # an ordinary training, whose first epoch is far above the others
        [0.0, 0.0, 0.1, 0.2, 0.3, 0.35, 0.4],
        np.random.default_rng(0).normal(size=500),
    ],
    ids=str,
)
def test_values_without_outliers_need_no_limits(values):
    assert robust_limits(np.array(values, dtype=float)) is None


@pytest.mark.parametrize("outlier", [600.0, 20.0, INF, -600.0, -INF])
@pytest.mark.parametrize("n_others", [4, 15, 60])
def test_an_outlier_is_outside_of_the_limits(outlier, n_others):
    others = np.linspace(0.4, 1.2, n_others)
    limits = robust_limits(np.append(others, outlier))
    assert limits == Limits(0.4, 1.2)


@pytest.mark.parametrize(("value", "limits"), [(10.9, None), (11.1, Limits(0, 1))])
def test_an_outlier_would_leave_the_others_a_tenth_of_the_height(value, limits):
    assert robust_limits(np.array([0.0] * 5 + [1.0] * 5 + [value])) == limits


def test_every_tenth_value_may_be_an_outlier():
    values = np.tile([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.45, 0.55, 0.65, 600.0], 3)
    assert robust_limits(values) == Limits(0.4, 0.9)


def test_what_is_half_of_the_values_is_no_outlier():
    values = np.concatenate([np.linspace(0.4, 0.6, 10), np.linspace(80, 120, 10)])
    assert robust_limits(values) is None


def test_missing_values_are_no_values():
    assert robust_limits(np.array([0.4, NAN, 0.5, 0.6, 0.7, 600])) == Limits(0.4, 0.7)


def test_curves_of_different_epochs_are_joined_where_they_have_values():
    band = join_curves([curve(1, 2, 3), curve(4, NAN, first=1), curve(8, first=5)])
    assert_array_equal(band.x, [0, 1, 2, 5])
    assert_array_equal(band.mean, [1, 3, 3, 8])
    assert_array_equal(band.low, [1, 2, 3, 8])
    assert_array_equal(band.high, [1, 4, 3, 8])


def test_a_single_curve_is_a_line_and_several_are_a_mean_in_a_band():
    axes = draw({"one": [curve(3, 2, 1)], "two": [curve(1, 2), curve(3, 6)]})
    one, two = axes.lines
    assert_array_equal(one.get_xydata(), [[0, 3], [1, 2], [2, 1]])
    assert_array_equal(two.get_xydata(), [[0, 2], [1, 4]])
    (band,) = axes.collections
    assert band.get_paths()[0].get_extents().bounds == (0, 1, 1, 5)
    assert same_color(band.get_facecolor()[0, :3], style_of(1)["color"])
    assert marks(axes) == []


def test_an_outlier_is_marked_with_its_value_and_flattens_nothing():
    axes = draw({"a": [curve(0.9, 0.7, 618.3, 0.5, 0.4)]})
    low, high = axes.get_ylim()
    assert (low, high) == pytest.approx((0.375, 0.925))
    assert marks(axes) == [(2, "618")]
    mark = axes.lines[-1]
    assert_array_equal(mark.get_xydata(), [[2, high]])
    assert same_color(mark.get_color(), style_of(0)["color"])


def test_an_outlier_below_is_marked_at_the_lower_edge():
    axes = draw({"a": [curve(0.9, 0.91, 0.0, 0.92, 0.93, 0.94)]})
    assert marks(axes) == [(2, "0")]
    assert axes.lines[-1].get_ydata()[0] == axes.get_ylim()[0] > 0.8


def test_outliers_belong_to_no_mean_and_no_band():
    axes = draw({"a": [curve(1, 2, 1, 2), curve(3, 2, 600, 2)]})
    assert_array_equal(axes.lines[0].get_ydata(), [2, 2, 1, 2])
    (band,) = axes.collections
    assert band.get_paths()[0].get_extents().ymax == 3


def test_outliers_of_one_epoch_have_one_mark():
    plain = curve(1, 2, 1, 2, 1, 2, 1, 2, 1, 2)
    wild = [curve(1, 2, value, 2, 1, 2, 1, 2, 1, 2) for value in (600, 33)]
    axes = draw({"a": [plain, wild[0]], "b": [wild[1]], "c": [plain]})
    assert marks(axes) == [(2, "33 to 600 (2 runs)")]


def test_infinite_values_are_drawn_as_marks(tmp_path):
    axes = draw({"a": [curve(1, 2, INF, 2)]})
    assert marks(axes) == [(2, "inf")]
    save_figure(axes.figure, tmp_path / "a.png")


@pytest.mark.filterwarnings("error")
def test_values_that_do_not_exist_are_gaps(tmp_path):
    axes = draw({"a": [curve(NAN, NAN), curve(NAN, NAN)], "b": [curve(NAN)]})
    save_figure(axes.figure, tmp_path / "a.png")


def test_a_name_without_curves_keeps_its_colour():
    axes = draw({"none": [], "some": [curve(1, 2)]})
    (line,) = axes.lines
    assert same_color(line.get_color(), style_of(1)["color"])
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["some"]


@pytest.mark.parametrize("n_lines", [1, MAX_INSIDE, MAX_INSIDE + 1, 20])
def test_the_names_of_many_lines_stand_below_the_panel(n_lines):
    figure = new_figure(5, panel_height(n_lines))
    axes = figure.subplots()
    draw_curves(axes, {f"run {n}": [curve(n, n + 1)] for n in range(n_lines)})
    figure.draw_without_rendering()
    legend = axes.get_legend()
    assert legend is not None
    box, panel = legend.get_window_extent(), axes.get_window_extent()
    assert (box.y1 < panel.y0) == (n_lines > MAX_INSIDE)
    assert box.y0 >= 0
    assert panel.height > 2.5 * figure.dpi
