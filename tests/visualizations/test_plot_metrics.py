import numpy as np
import pytest

from src.visualizations.figures import save_figure
from src.visualizations.plot_metrics import main, plot_runs
from tests.made_predictions import make_sweep


def points(line):
    return np.asarray(line.get_xydata()).tolist()


FIRST = make_sweep([[0.1, 0.2, 0.3], [0.6, 0.5, 0.4]])
SECOND = make_sweep([[0.3, 0.7, 0.2], [0.1, 0.1, 0.1]], epochs=(3, 5))


def test_plot_runs_has_a_line_for_each_run():
    by_epoch, by_threshold = plot_runs({"a": [FIRST], "b": [SECOND]}).axes
    lines = {line.get_label(): points(line) for line in by_epoch.lines}
    assert lines == {"a": [[0, 0.3], [1, 0.6]], "b": [[3, 0.7], [5, 0.1]]}
    assert [line.get_label() for line in by_threshold.lines] == ["a, epoch 1", "b, epoch 3"]
    assert points(by_threshold.lines[1]) == [[0.1, 0.3], [0.3, 0.7], [1, 0.2]]
    legend = by_epoch.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_runs_that_belong_together_are_one_line():
    by_epoch, by_threshold = plot_runs({"a": [FIRST, SECOND], "none": [], "b": [FIRST]}).axes
    assert [line.get_label() for line in by_epoch.lines] == ["a", "b"]
    assert points(by_epoch.lines[0]) == [[0, 0.3], [1, 0.6], [3, 0.7], [5, 0.1]]
    assert [line.get_label() for line in by_threshold.lines] == ["a, epochs 1 to 3", "b, epoch 1"]
    _, scores = zip(*points(by_threshold.lines[0]), strict=True)
    assert scores == pytest.approx(((0.6 + 0.3) / 2, (0.5 + 0.7) / 2, (0.4 + 0.2) / 2))


@pytest.mark.filterwarnings("error")
def test_plots_pass_over_scores_that_do_not_exist(tmp_path):
    sweep = make_sweep([[np.nan, 0.2, 0.3], [np.nan, np.nan, np.nan]])
    save_figure(plot_runs({"a": [sweep]}), tmp_path / "runs.png")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("nothing", [0.0, np.nan])
def test_the_last_epoch_is_shown_where_nothing_hits_or_nothing_counts(tmp_path, nothing):
    figure = plot_runs({"a": [make_sweep(np.full((2, 3), nothing), epochs=(3, 5))]})
    assert [line.get_label() for line in figure.axes[1].lines] == ["a, epoch 5"]
    save_figure(figure, tmp_path / "runs.png")


def test_the_command_writes_png_and_pdf(tmp_path, call_main):
    for name, sweep in (("a", FIRST), ("b", SECOND)):
        sweep.save(tmp_path / name / "scores.npz")
    out = tmp_path / "pics" / "metrics.png"
    outcome = call_main(main, tmp_path / "a", tmp_path / "b", "--out", out)
    assert outcome.out.splitlines() == [str(out), str(out.with_suffix(".pdf"))]
    assert all(path.stat().st_size > 1000 for path in (out, out.with_suffix(".pdf")))


def test_runs_of_the_same_name_keep_a_name_each(tmp_path, call_main, monkeypatch):
    drawn = []

    def record(sweeps):
        drawn.extend(sweeps)
        return plot_runs(sweeps)

    monkeypatch.setattr("src.visualizations.plot_metrics.plot_runs", record)
    runs = [tmp_path / parent / "demo_fold_0" for parent in ("one", "two")]
    for run_dir in runs:
        FIRST.save(run_dir / "scores.npz")
    assert call_main(main, *runs, "--out", tmp_path / "m.png").code == 0
    assert len(set(drawn)) == 2
