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
