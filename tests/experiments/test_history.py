import numpy as np
import pytest

from src.experiments.history import HistoryError, epochs_since_least, read_history, write_history

ROWS = [
    {"epoch": 0, "learning_rate": 1e-5, "valid_loss": 0.123456789},
    {"epoch": 1, "learning_rate": 2e-6, "valid_loss": 1 / 3},
]


def test_history_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "run" / "history.csv"
    write_history(path, ROWS)
    table = read_history(path, ["valid_loss", "learning_rate"])
    assert table["epoch"].tolist() == [0, 1]
    assert table["valid_loss"].tolist() == pytest.approx([0.123456789, 1 / 3], rel=1e-7)
    assert table["learning_rate"].tolist() == [1e-5, 2e-6]


def test_columns_that_older_histories_lack_are_read_where_they_are(tmp_path):
    write_history(tmp_path / "history.csv", ROWS)
    table = read_history(tmp_path / "history.csv", ["valid_loss"], optional=("learning_rate", "b"))
    assert table.columns.tolist() == ["epoch", "valid_loss", "learning_rate"]


def test_history_holds_a_row_for_each_epoch(tmp_path):
    write_history(tmp_path / "history.csv", ROWS)
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,learning_rate,valid_loss"
    assert lines[1] == "0,1e-05,0.12345679"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "no such history"),
        (b"", "not a readable history"),
        (b"epoch,valid_loss\n0,lots\n", "not a readable history"),
        (b"epoch,valid_loss\n,0.5\n", "not a readable history"),
        (b"epoch,valid_loss\n0,1,2\n1,2,3,4\n", "not a readable history"),
        (b"\xff\xfe\x00", "not a readable history"),
        (b"epoch,loss\n0,1\n", "has no column valid_loss; it has epoch, loss"),
        (b"valid_loss\n1\n", "has no column epoch"),
        (b"epoch,valid_loss\n0,%s\n" % (b"9" * 400), "not a readable history"),
    ],
)
def test_a_history_that_is_something_else_is_refused(tmp_path, content, match):
    path = tmp_path / "history.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HistoryError, match=match) as caught:
        read_history(path, ["valid_loss"])
    assert str(path) in str(caught.value)


def test_optional_columns_are_read_where_they_are_there(tmp_path):
    path = tmp_path / "history.csv"
    write_history(path, [ROWS[0], ROWS[1] | {"seconds": 2.5}])
    table = read_history(path, ["valid_loss"], optional=["seconds", "waiting_share"])
    assert list(table) == ["epoch", "valid_loss", "seconds"]
    assert np.isnan(table["seconds"][0])
    assert table["seconds"][1] == 2.5


def test_epochs_since_the_least_of_a_column_that_is_missing_count_from_the_first():
    assert epochs_since_least(ROWS, "valid_loss") == 1
    assert epochs_since_least(ROWS, "learning_rate") == 0
    assert epochs_since_least(ROWS, "seconds") == 1
    assert epochs_since_least([], "valid_loss") == 0
