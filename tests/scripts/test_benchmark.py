import json
import os

import cv2
import pytest

from scripts import benchmark


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine has
def test_data_measures_every_way(phantoms, tmp_path, call_main, monkeypatch):
    monkeypatch.setattr("scripts.benchmarks.data.EPOCH", 4)
    n_threads, cores = cv2.getNumThreads(), os.sched_getaffinity(0)
    outcome = call_main(
        benchmark.main, "data", "--data-dir", phantoms, "--output-dir", tmp_path, "--images", "2",
        "--runs", "1", "--workers", "1", "--json", tmp_path / "numbers.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    ways = {row["way"] for row in numbers["one core"]}
    assert ways >= {"plain: pydicom, skimage, numpy", "this project from its cache"}
    assert {row["part"] for row in numbers["parts"]} >= {"decode it", "warp"}
    assert [row["workers"] for row in numbers["workers"]] == [1]
    assert (cv2.getNumThreads(), os.sched_getaffinity(0)) == (n_threads, cores)


def test_metric_measures_every_way_and_the_numbers_of_papers(phantoms, tmp_path, call_main):
    outcome = call_main(
        benchmark.main, "metric", "--data-dir", phantoms, "--runs", "1", "--images", "20", "--json",
        tmp_path / "numbers.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    tables = json.loads((tmp_path / "numbers.json").read_text())
    assert {row["way"] for row in tables["rows"]} >= {"plain loops", "src.metric"}
    assert [(row["images"], row["draws"]) for row in tables["numbers"]] == [(20, 0), (20, 1000)]
    assert all(row["median processor s"] > 0 for row in tables["numbers"])
