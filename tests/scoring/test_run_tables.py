import csv

import pytest

from src.experiments.run_facts import read_run_facts
from src.scoring.run_results import UNKNOWN, Estimate, RunResult, Spread
from src.scoring.run_tables import (
    Column,
    RunRow,
    group_columns,
    group_rows,
    is_unknown,
    run_columns,
    write_columns,
)
from tests.made_predictions import save_run
from tests.made_runs import describe_run

FULL = RunResult(epochs=2, epoch=1, threshold=0.3, score=Estimate(0.5, 0.4, 0.625), seconds=61.5)


def read_table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def rows(tmp_path):
    """Two folds, and a run of which nothing is known."""
    folds = [
        RunRow(f"fold {n}", read_run_facts(describe_run(tmp_path, fold=n)), FULL) for n in (0, 1)
    ]
    return [*folds, RunRow("odd", read_run_facts(save_run(tmp_path / "a", 0)), RunResult())]


def test_every_run_has_a_row_and_what_is_unknown_is_empty(rows, tmp_path):
    write_columns(tmp_path / "runs.csv", run_columns(rows))
    first, _, odd = read_table(tmp_path / "runs.csv")
    assert (first["run"], first["fold"], first["seed"]) == ("fold 0", "0", "1")
    assert (first["score"], first["score_low"], first["score_high"]) == ("0.5", "0.4", "0.625")
    assert (first["epochs"], first["n_epochs"], first["seconds"]) == ("2", "4", "61.5")
    assert first["date"] == "2026-01-02T03:04:05+00:00"
    assert {name: value for name, value in odd.items() if value} == {"run": "odd"}


def test_only_settings_that_differ_have_a_column(rows, tmp_path):
    changed = describe_run(tmp_path, tag="b", settings={"pyramid_levels": [3, 4, 5], "hflip": True})
    rows = [*rows, RunRow("changed", read_run_facts(changed), FULL)]
    names = [column.name for column in run_columns(rows)]
    assert names[:6] == ["run", "fold", "seed", "hflip", "pyramid_levels", "score"]
    write_columns(tmp_path / "runs.csv", run_columns(rows))
    table = read_table(tmp_path / "runs.csv")
    assert [row["pyramid_levels"] for row in table] == ["[3, 4]", "[3, 4]", "", "[3, 4, 5]"]
    assert [row["hflip"] for row in table] == ["false", "false", "", "true"]


def test_groups_have_a_row_each(rows, tmp_path):
    groups = group_rows(rows, "folds")
    write_columns(tmp_path / "groups.csv", group_columns(groups))
    folds, odd = read_table(tmp_path / "groups.csv")
    assert (folds["group"], folds["n_runs"]) == ("demo, 2 folds", "2")
    assert folds["runs"] == "'fold 0' 'fold 1'"
    assert (folds["score"], folds["score_deviation"]) == ("0.5", "0")
    assert "holds no predictions" in folds["note"]
    assert {name: odd[name] for name in odd if odd[name]} == {
        "group": "a/demo_fold_0", "n_runs": "1", "runs": "odd"
    }  # fmt: skip


@pytest.mark.parametrize("cell", [None, "", float("nan"), UNKNOWN, Spread()])
def test_nothing_is_unknown(cell):
    assert is_unknown(cell)


@pytest.mark.parametrize("cell", [0, 0.0, False, Estimate(0.0), "–", ()])
def test_something_is_known(cell):
    assert not is_unknown(cell)


def test_names_that_are_no_text_are_written_as_escapes(tmp_path):
    write_columns(tmp_path / "a.csv", [Column("run", ["a\udcff", 'b,"\n'])])
    assert [row["run"] for row in read_table(tmp_path / "a.csv")] == ["a\\udcff", 'b,"\n']
