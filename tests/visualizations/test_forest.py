import pytest

from src.scoring.comparison import BOOTSTRAP, Difference
from src.visualizations.forest import plot_forest


def difference(number, a=0, b=1, *, value=0.1, p=0.5):
    return Difference(number, a, b, value, 0, value, value - 0.2, value + 0.2, p, p, BOOTSTRAP, "")


def marks(axes):
    return [line for line in axes.lines if line.get_marker() == "o"]


def test_a_difference_that_is_shown_is_a_filled_mark():
    found = [difference("score", p=0.01), difference("ap_50", value=-0.3, p=0.0001)]
    figure = plot_forest([*found, difference("froc", p=0.06)], "AB", ["one", "other"])
    (axes,) = figure.axes
    assert [line.get_markerfacecolor() for line in marks(axes)] == ["black", "black", "white"]
    assert [line.get_xdata()[0] for line in marks(axes)] == [0.1, -0.3, 0.1]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["0.010", "<0.001", "0.060", "p"]
    assert figure.get_suptitle() == "A: one\nB: other"


def test_every_pair_has_a_panel_with_the_numbers_it_has():
    found = [difference("score", 0, 1), difference("score", 0, 2), difference("score", 1, 2),
             difference("ece (best box)", 1, 2), difference("froc_reached", 1, 2)]  # fmt: skip
    figure = plot_forest(found, "ABC", ["a", "b", "c"])
    labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert labels == [["score"], ["score"], ["score", "ece (best box), lower is better"]]


@pytest.mark.filterwarnings("error")
def test_without_numbers_the_figure_is_empty():
    figure = plot_forest([], "AB", ["one", "other"])
    assert [axes.get_visible() for axes in figure.axes] == [False]
