from dataclasses import replace

import numpy as np
import pytest

from src.visualizations.figures import save_figure
from src.visualizations.plot_global_head import main, plot_global_head
from tests.made_predictions import random_predictions

# not normal taken for not normal, and for normal; normal for normal; opacity for opacity
PROBS = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.2, 0.8, 0.0], [0.0, 0.1, 0.9]], np.float32)
CATEGORIES = np.array([0, 0, 1, 2])


def classified(probs=PROBS, categories=CATEGORIES):
    predictions = random_predictions(n_images=len(probs))
    return replace(predictions, class_probs=probs, true_categories=categories)


def labels(axis):
    return [label.get_text().replace("\n", "") for label in axis.get_ticklabels()]


def test_the_confusion_is_drawn_with_counts_and_shares():
    confusion, _ = plot_global_head({"a": classified()}).axes
    names = ["Normal", "No Lung Opacity /Not Normal", "Lung Opacity"]
    assert labels(confusion.xaxis) == labels(confusion.yaxis) == names
    assert [text.get_text() for text in confusion.texts] == [
        "1\n100.0%", "0\n0.0%", "0\n0.0%",
        "1\n50.0%", "1\n50.0%", "0\n0.0%",
        "0\n0.0%", "0\n0.0%", "1\n100.0%",
    ]  # fmt: skip
    assert confusion.get_title(loc="left") == "75.0% of 4 images right"


def test_the_calibration_is_drawn_for_each_class():
    _, calibration = plot_global_head({"a": classified()}).axes
    legend = calibration.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "Normal: error 0.275", "No Lung Opacity / Not Normal: error 0.300",
        "Lung Opacity: error 0.075",
    ]  # fmt: skip
    opacity = np.asarray(calibration.lines[-1].get_xydata())
    np.testing.assert_allclose(opacity, np.array([[0, 0], [0.1, 0], [0.9, 1]]), atol=1e-6)
    assert calibration.get_title(loc="left") == "expected calibration error 0.150"


def test_a_run_has_a_row_of_its_own():
    figure = plot_global_head({"a": classified(), "b": classified()})
    assert len(figure.axes) == 4
    assert [row.get_suptitle() for row in figure.subfigs] == ["a", "b"]


@pytest.mark.filterwarnings("error")
def test_a_class_without_images_is_drawn(tmp_path):
    figure = plot_global_head({"a": classified(PROBS[:2], CATEGORIES[:2])})
    assert figure.axes[0].texts[0].get_text() == "0\n–"
    save_figure(figure, tmp_path / "head.png")


def test_the_command_writes_png_and_pdf(tmp_path, call_main):
    for name in ("a", "b"):
        classified().save(tmp_path / name / "predictions" / "000.npz")
    out = tmp_path / "pics" / "head.png"
    outcome = call_main(main, tmp_path / "a", tmp_path / "b", "--out", out)
    assert outcome.out.splitlines() == [str(out), str(out.with_suffix(".pdf"))]
    assert all(path.stat().st_size > 1000 for path in (out, out.with_suffix(".pdf")))


@pytest.mark.parametrize(
    ("categories", "arguments", "words"),
    [
        (CATEGORIES, ("--epoch", "-1"), "--epoch: -1"),
        (CATEGORIES, ("--epoch", "7"), "epoch 7"),
        (np.array([0, -1, 1, 2]), (), "holds no truth"),
    ],
)
def test_what_cannot_be_drawn_ends_with_one_line(tmp_path, call_main, categories, arguments, words):
    classified(PROBS, categories).save(tmp_path / "a" / "predictions" / "000.npz")
    outcome = call_main(main, tmp_path / "a", *arguments, "--out", tmp_path / "x.png")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert words in outcome.err
    assert not list(tmp_path.glob("x*"))
