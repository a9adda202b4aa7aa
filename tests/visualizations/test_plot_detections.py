from dataclasses import replace

import numpy as np
import pytest

from src.scoring.matching import Matches
from src.visualizations.figures import save_figure
from src.visualizations.plot_detections import (
    RunDetections,
    load_detections,
    main,
    plot_boxes,
    plot_precision_recall,
)
from tests.made_predictions import random_predictions, save_epoch

# Three found boxes, two of them hits; one of three true boxes is missed.
TRUE = np.array([[0.1, 0.1, 0.2, 0.4], [0.6, 0.1, 0.2, 0.4], [0.4, 0.7, 0.2, 0.2]])
FOUND = np.array([[0.1, 0.1, 0.3, 0.4], [0.6, 0.1, 0.22, 0.2], [0.8, 0.8, 0.4, 0.4]])
MATCHES = Matches(FOUND, np.array([0.9, 0.4, 0.3]), np.array([0, 1, -1]), TRUE)
RUN = RunDetections("a run, epoch 3", MATCHES, 0.35)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def points(line):
    return np.asarray(line.get_xydata())


def picture(axes):
    (image,) = axes.images
    return np.asarray(image.get_array())


def test_precision_and_recall_have_a_line_for_each_run():
    other = RunDetections("b", replace(MATCHES, true_rows=np.array([0, -1, -1])), 0.35)
    precision, recall, both = plot_precision_recall([RUN, other]).axes
    shown = [20, 70, 100, 190]  # of 200 scores: .1, .35, .5, .95
    first, second = (points(line)[shown] for line in precision.lines[::2])  # marks in between
    np.testing.assert_allclose(first[:, 0], [0.1, 0.35, 0.5, 0.95])
    np.testing.assert_allclose(first[:, 1], [2 / 3, 1, 1, np.nan])
    np.testing.assert_allclose(second[:, 1], [1 / 3, 1 / 2, 1, np.nan])
    np.testing.assert_allclose(points(recall.lines[0])[shown, 1], [2 / 3, 2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(points(both.lines[0])[70], [2 / 3, 1])


def test_the_chosen_threshold_is_marked_and_told():
    figure = plot_precision_recall([RUN])
    marks = [points(axes.lines[1]).tolist()[0] for axes in figure.axes]
    assert marks == [[0.35, 1.0], [0.35, 2 / 3], [2 / 3, 1.0]]
    (text,) = figure.legends[0].get_texts()
    assert text.get_text() == ("a run, epoch 3: precision 1.000, recall 0.667 at score × 5 > 1.75")


def test_boxes_below_the_threshold_are_left_out():
    figure = plot_boxes([RUN])
    assert titles(figure)[0] == "2 hits at IoU 0.5"
    assert titles(figure)[2:4] == ["3 true boxes", "2 found"]
    assert titles(plot_boxes([replace(RUN, min_score=0.2)]))[3] == "3 found"


def test_the_medians_of_the_sides_are_told():
    assert texts(plot_boxes([RUN]).axes[0]) == ["width: median 1.300", "height: median 0.750"]


def test_true_and_found_places_share_a_scale_of_colours():
    true_places, found_places = plot_boxes([RUN]).axes[2:4]
    assert true_places.images[0].get_clim() == found_places.images[0].get_clim()
    values = picture(true_places)
    assert values[128 // 5, 128 // 5] == pytest.approx(100 / 3)  # inside the first true box
    assert values[-1, 0] == 0


def test_boxes_are_cut_off_at_the_edge_of_the_image():
    leaving = replace(MATCHES, boxes=np.array([[-0.5, 0.5, 1, 1], [0.5, 0.5, 2, 2], [0, 0, 1, 1]]))
    places = picture(plot_boxes([replace(RUN, matches=leaving, min_score=0.35)]).axes[3])
    np.testing.assert_allclose(places[64:, :], 50)
    np.testing.assert_allclose(places[:64, :], 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("finds", [True, False])
def test_a_fold_without_true_boxes_is_drawn(tmp_path, call_main, finds):
    predictions = without_boxes(random_predictions(1))
    save_run(tmp_path / "a", predictions if finds else without_candidates(predictions))
    outcome = call_main(main, tmp_path / "a", "--out", tmp_path / "x.png")
    assert (outcome.code, outcome.err) == (0, "")
    assert len(outcome.out.splitlines()) == 4


@pytest.mark.filterwarnings("error")
def test_figures_without_a_hit_are_drawn(tmp_path):
    run = replace(RUN, matches=replace(MATCHES, true_rows=np.array([-1, -1, -1])))
    figure = plot_boxes([run])
    assert titles(figure)[0] == "0 hits at IoU 0.5"
    save_figure(figure, tmp_path / "boxes.png")
    save_figure(plot_precision_recall([run]), tmp_path / "lines.png")


def save_run(run_dir, predictions=None):
    predictions = random_predictions(1, epoch=0) if predictions is None else predictions
    save_epoch(run_dir, predictions)
    return run_dir


def test_a_run_is_loaded_at_its_threshold(tmp_path):
    run_dir = save_run(tmp_path / "a")
    default = load_detections(run_dir, "a", epoch=None, threshold=None, nms=0.05)
    assert default.name == "a, epoch 0"
    assert default.min_score == pytest.approx(0.06)
    asked = load_detections(run_dir, "a", epoch=0, threshold=2.5, nms=0.05)
    assert asked.min_score == 0.5
    loose = load_detections(run_dir, "a", epoch=0, threshold=2.5, nms=1.0)
    n_candidates = len(random_predictions(1).scores)
    assert len(asked.matches.scores) < len(loose.matches.scores) == n_candidates


def test_the_command_writes_png_and_pdf(tmp_path, call_main):
    runs = [save_run(tmp_path / name) for name in ("a", "b")]
    out = tmp_path / "pics" / "found.png"
    outcome = call_main(main, *runs, "--out", out)
    assert outcome.out.splitlines() == [
        str(out.with_name(f"found_{figure}{suffix}"))
        for figure in ("precision_recall", "boxes")
        for suffix in (".png", ".pdf")
    ]
    assert all(path.stat().st_size > 1000 for path in out.parent.iterdir())
    outcome = call_main(main, *runs, "--out", tmp_path / "x.png", "--figures", "boxes")
    assert len(outcome.out.splitlines()) == 2


def without_candidates(predictions):
    return replace(
        predictions,
        offsets=np.zeros_like(predictions.offsets),
        boxes_xyxy=predictions.boxes_xyxy[:0],
        scores=predictions.scores[:0],
    )


def without_boxes(predictions):
    return replace(
        predictions,
        true_offsets=np.zeros_like(predictions.true_offsets),
        true_boxes_xyxy=predictions.true_boxes_xyxy[:0],
    )


def without_truth(predictions):
    return replace(predictions, true_categories=np.full(len(predictions), -1))


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--epoch", "-1"), ("--threshold", "nan"), ("--nms", "-0.1"), ("--nms", "1.5")],
)
def test_a_flag_takes_no_value_without_sense(call_main, flag, value):
    outcome = call_main(main, "a", flag, value)
    assert outcome.code == 2
    assert f"{flag}: " in outcome.err


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (None, (), "no such folder"),
        (replace, ("--epoch", "7"), "epoch 7"),
        (replace, ("--threshold", "6"), "nothing with score x 5 over 6; the highest is 5"),
        (without_candidates, (), "nothing with score x 5 over 0.3; the highest is 0"),
        (without_truth, (), "holds no truth"),
    ],
)
def test_what_cannot_be_drawn_ends_with_one_line(tmp_path, call_main, change, arguments, words):
    run_dir = tmp_path / "a"
    if change is not None:
        save_run(run_dir, change(random_predictions(1, epoch=0)))
    outcome = call_main(main, run_dir, *arguments, "--out", tmp_path / "x.png")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert str(run_dir) in outcome.err
    assert words in outcome.err
    assert not list(tmp_path.glob("x*"))
