from dataclasses import replace

import numpy as np
import pytest

from src.prediction.presets import Postprocess
from src.scoring.average_precision import average_precision
from src.scoring.froc import FALSE_POSITIVES
from src.scoring.quoted_numbers import compute_numbers
from src.visualizations.figures import save_figure
from src.visualizations.number_panels import NO_WEAK
from src.visualizations.plot_numbers import load_numbers, main, plot_numbers
from src.visualizations.run_numbers import RunNumbers, run_numbers
from tests.made_predictions import (
    WHOLE,
    make_predictions,
    make_sweep,
    random_predictions,
    save_epoch,
    with_weak_boxes,
)
from tests.made_scored_images import random_images, scored_images

SETTING = Postprocess(nms=0.5)


def predictions_of(seed=1, **options):
    return with_weak_boxes(random_predictions(seed, n_images=40, **options))


def run_of(seed=1, name="a", n_draws=5):
    return run_numbers(name, predictions_of(seed), SETTING, n_draws)


def old_run(name="old"):
    return run_numbers(name, random_predictions(2), SETTING, 5)


def points(line):
    return np.asarray(line.get_xydata())


def legend_of(axes):
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def texts(axes):
    return [text.get_text().replace("\n", " ") for text in axes.texts]


def curves(axes, marker="o"):
    """The curves of a run, without its marks in legends and at single points."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [line for line in lines if len(points(line)) > 1]


def test_the_area_below_the_drawn_precision_is_the_average_precision():
    run = run_of()
    precision, *_ = plot_numbers([run]).axes
    ((x, y),) = (points(line).T for line in curves(precision))
    levels = np.zeros(101)
    levels[: len(y)] = y
    np.testing.assert_allclose(x, np.linspace(0, 1, 101)[: len(x)])
    assert 0.1 < levels.mean() < 1
    assert levels.mean() == pytest.approx(run.result("ap_50").value)
    assert levels.mean() == pytest.approx(average_precision(run.boxes, 0.5)[0])


def test_the_marked_points_of_froc_are_the_quoted_sensitivities():
    run = run_of()
    _, froc, *_ = plot_numbers([run]).axes
    marks = [line for line in froc.lines if line.get_marker() == "o" and len(points(line)) == 1]
    x, y = np.concatenate([points(line) for line in marks]).T
    assert tuple(x) == FALSE_POSITIVES
    np.testing.assert_allclose(y, [run.result(f"froc_{level:g}").value for level in x])
    reached = run.result("froc_reached").value
    assert 1 < reached < 8
    is_hollow = [line.get_fillstyle() == "none" for line in marks]
    assert is_hollow == [level > reached for level in FALSE_POSITIVES]
    (curve,) = (points(line) for line in froc.lines if line.get_drawstyle() == "steps-post")
    assert curve[-1, 0] == pytest.approx(reached)
    for level, sensitivity in zip(x, y, strict=True):
        assert curve[curve[:, 0] <= level, 1].max() == pytest.approx(sensitivity)


def test_roc_has_a_dash_for_each_image_score():
    run = run_of()
    *_, roc, _ = plot_numbers([run]).axes
    lines = curves(roc)
    assert [line.get_linestyle() for line in lines] == ["-", "--", ":"]
    for line, score in zip(lines, run.data.image_scores, strict=True):
        x, y = points(line).T
        assert np.trapezoid(y, x) == pytest.approx(run.result("auroc", score).value)
    assert [text.split(":")[0] for text in legend_of(roc)] == [
        "AUROC, global head", "AUROC, best box", "AUROC, both"
    ]  # fmt: skip


def test_reliability_tells_the_images_of_each_bin():
    probs = [[0.9, 0.05, 0.05], [0.8, 0.08, 0.12], [0.1, 0.18, 0.72], [0.0, 0.25, 0.75]]
    true: list[list[list[int]]] = [[], [WHOLE], [WHOLE], []]
    predictions = make_predictions(*((boxes, []) for boxes in true), probs=probs)
    run = run_numbers("a", predictions, SETTING, 0)
    *_, reliability = plot_numbers([run]).axes
    assert texts(reliability) == ["images in each bin:", *"1100000200"]
    (curve,) = curves(reliability)
    np.testing.assert_allclose(points(curve), [[0.05, 0], [0.12, 1], [0.735, 0.5]], atol=1e-6)
    assert legend_of(reliability) == ["ECE: 0.350"]


def test_numbers_stand_with_their_intervals():
    run = run_of()
    figure = plot_numbers([run])
    ap, froc = run.result("ap_50"), run.result("froc")
    assert legend_of(figure.axes[0]) == [
        f"AP at IoU .50: {ap.value:.3f} ({ap.low:.3f} to {ap.high:.3f})"
    ]
    assert legend_of(figure.axes[1]) == [
        f"mean sensitivity: {froc.value:.3f} ({froc.low:.3f} to {froc.high:.3f})"
    ]
    title = figure.legends[0].get_title().get_text()
    assert title == "Validation images; values with 95 % intervals by 5 draws of patients"


def test_runs_differ_in_colour_and_marker():
    figure = plot_numbers([run_of(1), run_of(2, "b")])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    for axes in figure.axes:
        styles = {(line.get_marker(), line.get_color()) for line in axes.lines}
        styles = {(marker, colour) for marker, colour in styles if marker in ("o", "s")}
        assert styles == {("o", "#0072B2"), ("s", "#D55E00")}
    counts = [text.get_position()[1] for text in figure.axes[3].texts[1:]]
    assert counts[:10] == [counts[0]] * 10
    assert counts[0] > counts[10]  # in the order of the legend


def test_a_run_without_weaker_boxes_has_a_sentence_for_two_curves():
    precision, froc, roc, reliability = plot_numbers([old_run()]).axes
    for axes in (precision, froc):
        assert texts(axes) == [NO_WEAK]
        assert not curves(axes)
        assert not legend_of(axes)
    assert len(curves(roc)) == 3
    assert legend_of(reliability)


def test_beside_runs_with_curves_the_sentence_stands_in_the_legend():
    precision, *_ = plot_numbers([run_of(), old_run()]).axes
    value, sentence = legend_of(precision)
    assert value.startswith("AP at IoU .50: ")
    assert sentence.replace("\n", " ") == f"No curve. {NO_WEAK}"
    assert not texts(precision)


def run_of_images(data):
    scores = dict.fromkeys(("global head", "best box", "both"), data.image_scores["head"])
    data = replace(data, image_scores=scores)
    return RunNumbers("a", data, compute_numbers(data, 0), 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("true", "words"),
    [
        ([[], []], ["No image has true boxes."] * 2 + ["No image has an opacity."]),
        ([[[0.0, 0, 9, 9]]] * 2, ["Every image has an opacity."]),
    ],
    ids=["no opacity", "opacities alone"],
)
def test_curves_that_are_undefined_are_replaced_by_the_reason(tmp_path, true, words):
    images = [([[300.0, 300, 9, 9]], np.array([0.5]), own) for own in true]
    figure = plot_numbers([run_of_images(scored_images(images, head=[0.2, 1.0]))])
    assert [text for axes in figure.axes[:3] for text in texts(axes)] == words
    save_figure(figure, tmp_path / "a.png")


@pytest.mark.filterwarnings("error")
def test_images_without_found_boxes_are_drawn(tmp_path):
    data = scored_images([([], np.zeros(0), [[0.0, 0, 9, 9]]), ([], np.zeros(0), [])], head=[1, 0])
    figure = plot_numbers([run_of_images(data)])
    assert legend_of(figure.axes[0]) == ["AP at IoU .50: 0.000"]
    assert legend_of(figure.axes[1]) == ["mean sensitivity: 0.000"]
    save_figure(figure, tmp_path / "a.png")


def test_more_runs_than_colours_are_told_apart():
    data = random_images(np.random.default_rng(0), 20)
    runs = [replace(run_of_images(data), name=str(i)) for i in range(9)]
    handles = plot_numbers(runs).legends[0].get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in handles}) == 9


def save_run(run_dir, predictions=None):
    save_epoch(run_dir, predictions_of(epoch=0) if predictions is None else predictions)
    return run_dir


def test_a_run_is_loaded_at_its_best_epoch_and_setting(tmp_path):
    for epoch in (0, 1):
        save_run(tmp_path / "a", predictions_of(epoch + 1, epoch=epoch))
    last = load_numbers(tmp_path / "a", "a", epoch=None, n_draws=0)
    assert last.name == "a, epoch 1: boxes by score × 5, NMS 0.05"
    sweep = replace(make_sweep([[0.1, 0.4, 0.2], [0.1, 0.2, 0.3]]), shrinks=(0.9,), nms=(0.5,))
    sweep.save(tmp_path / "a" / "scores.npz")
    best = load_numbers(tmp_path / "a", "a", epoch=None, n_draws=0)
    assert best.name == "a, epoch 0: boxes by score × 5, NMS 0.5, sides × 0.9"
    expected = run_numbers("", predictions_of(1, epoch=0), Postprocess(shrink=0.9, nms=0.5), 0)
    assert [row.value for row in best.results] == [row.value for row in expected.results]


def test_the_command_writes_png_and_pdf(tmp_path, call_main):
    runs = [save_run(tmp_path / name) for name in ("a", "b")]
    out = tmp_path / "pics" / "numbers.png"
    outcome = call_main(main, *runs, "--draws", "5", "--out", out)
    assert outcome.out.splitlines() == [str(out), str(out.with_suffix(".pdf"))]
    assert all(path.stat().st_size > 1000 for path in out.parent.iterdir())


def test_the_command_draws_the_roc_curves_that_are_asked_for(tmp_path, call_main, monkeypatch):
    drawn = []

    def record(runs):
        drawn.append(plot_numbers(runs))
        return drawn[0]

    monkeypatch.setattr("src.visualizations.plot_numbers.plot_numbers", record)
    flags = ("--draws", "0", "--roc", "both", "head", "--out", tmp_path / "x.png")
    assert call_main(main, save_run(tmp_path / "a"), *flags).code == 0
    labels = [text.split(":")[0] for text in legend_of(drawn[0].axes[2])]
    assert labels == ["AUROC, both", "AUROC, global head"]


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (None, (), "no such folder"),
        (replace, ("--epoch", "7"), "epoch 7"),
        (replace, ("--epoch", "-1"), "--epoch: -1"),
        (replace, ("--draws", "-1"), "--draws: -1"),
        (replace, ("--roc", "all"), "--roc"),
        (lambda p: replace(p, true_categories=np.full(len(p), -1)), (), "holds no truth"),
    ],
)
def test_what_cannot_be_drawn_ends_with_one_line(tmp_path, call_main, change, arguments, words):
    if change is not None:
        save_run(tmp_path / "a", change(predictions_of(epoch=0)))
    outcome = call_main(main, tmp_path / "a", *arguments, "--out", tmp_path / "x.png")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert words in outcome.err
    assert not list(tmp_path.glob("x*"))
