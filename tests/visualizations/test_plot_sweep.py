import numpy as np
import pytest

from src.prediction.presets import GATES
from src.scoring.sweep import ScoredRun, Sweep
from src.visualizations.figures import save_figure
from src.visualizations.plot_sweep import main, plot_sweep, table_at
from tests.made_predictions import make_sweep

SHRINKS, NMS, THRESHOLDS = (1.0, 0.875), (0.05, 0.3, 0.5), (0.1, 0.3, 1.0, 2.0)


def wide_sweep(best_at=(1, 2, 1, 2, 3)):
    """Scores below .5, but for the best."""
    shape = (2, len(GATES), len(SHRINKS), len(NMS), len(THRESHOLDS))
    scores = np.random.default_rng(0).uniform(0.1, 0.5, shape)
    scores[best_at] = 0.625
    return Sweep((4, 7), tuple(GATES), SHRINKS, NMS, THRESHOLDS, scores, ScoredRun())


def frames(axes):
    """Column and row of each framed cell."""
    return [tuple(frame.get_bbox().bounds) for frame in axes.patches]


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_tables_hold_all_else_at_the_best_setting():
    sweep = wide_sweep()
    place = sweep.place_of(sweep.best())
    by_epoch, by_nms = (table_at(sweep, axis, place) for axis in ("epoch", "nms"))
    np.testing.assert_array_equal(by_epoch, sweep.scores[:, 2, 1, 2, :])
    np.testing.assert_array_equal(by_nms, sweep.scores[1, 2, 1, :, :])


def test_the_best_is_framed_in_both_heat_maps():
    by_epoch, by_nms = [axes for axes in plot_sweep(wide_sweep(), "a").axes if axes.texts]
    assert frames(by_epoch) == [(2.5, 0.5, 1, 1)]
    assert frames(by_nms) == [(2.5, 1.5, 1, 1)]
    assert labels(by_epoch.yaxis) == ["4", "7"]
    assert labels(by_nms.yaxis) == ["0.05", "0.3", "0.5"]
    assert labels(by_nms.xaxis) == labels(by_epoch.xaxis) == ["0.1", "0.3", "1", "2"]


def test_the_setting_of_the_best_is_told():
    figure = plot_sweep(wide_sweep(), "a run")
    by_epoch, by_nms = [axes for axes in figure.axes if axes.texts]
    title = figure.get_suptitle()
    assert "a run" in title
    assert "0.625" in title
    assert "0.875" in title
    assert by_epoch.get_title(loc="left") == "at NMS 0.5"
    assert by_nms.get_title(loc="left") == "at epoch 7"
    assert "√(score × category)" in by_nms.get_xlabel()


def test_scores_are_written_into_the_cells():
    sweep = make_sweep([[0.1, 0.2, 0.3], [0.6, 0.596, 1.0]])
    axes = plot_sweep(sweep, "a").axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == [".100", ".200", ".300", ".600", ".596", "1.000"]


def test_scores_close_to_the_best_are_bold():
    sweep = make_sweep([[0.1, 0.2, 0.3], [0.6, 0.596, 0.594]])
    axes = plot_sweep(sweep, "a").axes[0]
    bold = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
    assert bold == [".600", ".596"]


def test_a_sweep_of_one_nms_threshold_is_one_heat_map():
    figure = plot_sweep(make_sweep([[0.1, 0.2, 0.3]]), "a")
    assert len([axes for axes in figure.axes if axes.images]) == 1


def test_many_thresholds_are_not_written_over_each_other():
    thresholds = tuple(np.linspace(0.1, 4, 40).round(2).tolist())
    sweep = make_sweep(np.full((1, 40), 0.5), thresholds=thresholds)
    axes = plot_sweep(sweep, "a").axes[0]
    assert len(axes.texts) == 0
    assert frames(axes) == [(-0.5, -0.5, 1, 1)]


@pytest.mark.filterwarnings("error")
def test_scores_that_do_not_exist_are_passed_over(tmp_path):
    sweep = make_sweep([[np.nan, 0.2, 0.3], [np.nan, np.nan, np.nan]])
    figure = plot_sweep(sweep, "a")
    assert [text.get_text() for text in figure.axes[0].texts] == ["–", ".200", ".300", *"–––"]
    save_figure(figure, tmp_path / "heat.png")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("nothing", "words"), [(0.0, "no setting scores"), (np.nan, "no true boxes")]
)
def test_no_cell_is_framed_where_nothing_hits_or_nothing_counts(tmp_path, nothing, words):
    figure = plot_sweep(make_sweep(np.full((2, 3), nothing)), "a run")
    axes = figure.axes[0]
    assert frames(axes) == []
    assert not [text for text in axes.texts if text.get_fontweight() == "bold"]
    assert words in figure.get_suptitle()
    save_figure(figure, tmp_path / "heat.png")


def test_the_command_writes_png_and_pdf(tmp_path, call_main):
    wide_sweep().save(tmp_path / "a" / "sweep.npz")
    out = tmp_path / "pics" / "sweep.png"
    outcome = call_main(main, tmp_path / "a", "--out", out)
    assert outcome.out.splitlines() == [str(out), str(out.with_suffix(".pdf"))]
    assert all(path.stat().st_size > 1000 for path in (out, out.with_suffix(".pdf")))


def test_a_run_that_was_not_swept_ends_with_one_line(tmp_path, call_main):
    outcome = call_main(main, tmp_path / "none", "--out", tmp_path / "x.png")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert "src/scores.py" in outcome.err
    assert list(tmp_path.iterdir()) == []
