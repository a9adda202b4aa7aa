import numpy as np
import pandas as pd
import pytest

from src.experiments.history import write_history
from src.visualizations.plot_val_loss import main, plot_losses
from tests.made_runs import describe_run, save_losses

HISTORIES = {
    "a": pd.DataFrame({"epoch": [0, 1], "valid_loss": [1.0, 0.5], "valid_regression": [0.4, 0.3]}),
    "b": pd.DataFrame({"epoch": [2, 4], "valid_loss": [0.9, 0.8], "valid_regression": [0.2, 0.25]}),
}


def test_plot_losses_has_a_panel_for_each_loss_and_a_line_for_each_run():
    loss, regression = plot_losses(
        {name: [own] for name, own in HISTORIES.items()}, ["loss", "regression"]
    ).axes
    assert [np.asarray(line.get_xydata()).tolist() for line in loss.lines] == [
        [[0, 1.0], [1, 0.5]], [[2, 0.9], [4, 0.8]]
    ]  # fmt: skip
    assert [line.get_label() for line in regression.lines] == ["a (best 0.300)", "b (best 0.200)"]
    assert regression.get_title(loc="left") == "Validation regression loss"
    assert loss.get_title(loc="left") == "Validation loss"


def test_runs_that_belong_together_are_one_line():
    second = HISTORIES["a"].assign(valid_loss=[2.0, 1.5])
    (axes,) = plot_losses({"a": [HISTORIES["a"], second], "b": [HISTORIES["b"]]}, ["loss"]).axes
    assert [line.get_label() for line in axes.lines] == ["a (mean best 1.000)", "b (best 0.800)"]
    assert np.asarray(axes.lines[0].get_xydata()).tolist() == [[0, 1.5], [1, 1.0]]


@pytest.mark.parametrize(("flags", "n_lines"), [([], 2), (["--average-over", "nothing"], 3),
                                                (["--average-over", "seeds"], 1)])  # fmt: skip
def test_the_command_draws_folds_as_one_line(tmp_path, call_main, monkeypatch, flags, n_lines):
    drawn = []

    def record(histories, losses):
        drawn.append(len(histories))
        return plot_losses(histories, losses)

    monkeypatch.setattr("src.visualizations.plot_val_loss.plot_losses", record)
    runs = [
        save_losses(describe_run(tmp_path, fold=fold, tag=tag), [0.5, 0.4])
        for fold, tag in ((0, ""), (1, ""), (0, "b"))
    ]
    assert call_main(main, *runs, "--out", tmp_path / "m.png", *flags).code == 0
    assert drawn == [n_lines]


def save_history(run_dir, table):
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    write_history(run_dir / "history.csv", rows)
    return run_dir


def save_histories(folder):
    return [save_history(folder / name, table) for name, table in HISTORIES.items()]


def test_the_command_writes_png_and_pdf(tmp_path, call_main):
    out = tmp_path / "pics" / "loss.png"
    outcome = call_main(main, *save_histories(tmp_path), "--loss", "loss", "--out", out)
    assert outcome.out.splitlines() == [str(out), str(out.with_suffix(".pdf"))]
    assert all(path.stat().st_size > 1000 for path in (out, out.with_suffix(".pdf")))


def test_a_history_without_the_loss_ends_with_one_line(tmp_path, call_main):
    runs = save_histories(tmp_path)
    outcome = call_main(main, *runs, "--loss", "classification", "--out", tmp_path / "x.png")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert "has no column valid_classification" in outcome.err
    assert not (tmp_path / "x.png").exists()


def test_runs_of_the_same_name_keep_a_line_each(tmp_path, call_main, monkeypatch):
    drawn = []

    def record(histories, losses):
        drawn.extend(histories)
        return plot_losses(histories, losses)

    monkeypatch.setattr("src.visualizations.plot_val_loss.plot_losses", record)
    runs = [
        save_history(tmp_path / parent / "demo_fold_0", table)
        for parent, table in zip(("one", "two"), HISTORIES.values(), strict=True)
    ]
    assert call_main(main, *runs, "--out", tmp_path / "m.png").code == 0
    assert len(set(drawn)) == 2
