import json

import numpy as np
import pytest

from scripts import benchmark
from scripts.benchmarks import growth
from scripts.benchmarks.measuring import Timing


def test_growth_measures_every_axis(call_main, tmp_path):
    outcome = call_main(
        benchmark.main, "growth", "--model", "demo", "--batch-size", "1", "--runs", "1", "--sides",
        "192", "--batches", "2", "--images", "40", "--boxes", "3", "--threads", "1", "--precision",
        "fp32", "--json", tmp_path / "n.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    tables = json.loads((tmp_path / "n.json").read_text())
    assert [len(tables[axis]) for axis in ("side px", "batch", "images", "boxes an image")] == [
        2
    ] * 4


def test_the_exponent_of_a_cost_that_grows_with_the_square_is_two(monkeypatch):
    times = [Timing(median, median, median) for median in (1.0, 3.0, 16.0, 6.0)]
    monkeypatch.setattr(growth, "time_in_turn", lambda works, **_: times)
    rows = growth.grow("n", [2, 8], lambda n: {"square": print, "root": print}, n_runs=1)
    assert [row["what"] for row in rows] == ["square", "square", "root", "root"]
    assert rows[1]["exponent"] == pytest.approx(2)
    assert rows[3]["exponent"] == pytest.approx(0.5)
    assert rows[0]["exponent"] == ""


def test_invented_predictions_are_of_the_challenges_kind():
    found = growth.invent_predictions(1000, 5)
    assert (np.diff(found.offsets) == 5).all()
    assert 0.2 < len(found.true_boxes_xyxy) / 1000 < 0.25
    assert (np.diff(found.scores.reshape(1000, 5)) <= 0).all()
