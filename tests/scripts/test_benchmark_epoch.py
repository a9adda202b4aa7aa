import json

import pytest

from scripts import benchmark
from scripts.benchmarks.epoch import WatchedLoader


def test_watched_loader_counts_the_time_until_a_batch_comes(monkeypatch):
    clock = 0

    def batches():
        nonlocal clock
        for n in range(3):
            clock += 2
            yield n

    monkeypatch.setattr("time.perf_counter", lambda: clock)
    watched = WatchedLoader(batches())
    seen: list[object] = []
    for batch in watched:
        clock += 100
        seen.append(batch)
    assert seen == [0, 1, 2]
    assert watched.waited == 6


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine has
def test_epoch_takes_every_stage_from_files_and_from_the_cache(phantoms, tmp_path, call_main):
    outcome = call_main(
        benchmark.main, "epoch", "--data-dir", phantoms, "--output-dir", tmp_path, "--images", "6",
        "--batch-size", "3", "--epochs", "1", "--workers", "0", "--device", "cpu",
        "--json", tmp_path / "n.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    rows = json.loads((tmp_path / "n.json").read_text())["rows"]
    stages = {"training": 6, "validation": 2, "prediction": 2, "score": 2}
    assert [(row["images from"], row["stage"], row["images"]) for row in rows] == [
        (source, stage, n) for source in ("DICOM", "cache") for stage, n in stages.items()
    ]
    assert all(0 <= row["waited for data %"] < 100 for row in rows)
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "n.json"}
