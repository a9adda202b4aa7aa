import json
from dataclasses import asdict, replace

import pytest

from src.prediction.presets import Postprocess
from src.prediction.provenance import describe_networks, stored_sizes, write_provenance
from tests.prediction.test_predictions import random_predictions


def test_provenance_names_file_networks_and_settings(tmp_path):
    settings = Postprocess(threshold=0.7, threshold_from="check_metric, epoch 3", shrink=0.9)
    npz_path = tmp_path / "predictions" / "003.npz"
    write_provenance(tmp_path / "a.csv", random_predictions(epoch=3), npz_path, settings)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "predictions": "predictions/003.npz",
        "members": [{"model": "demo", "tag": "", "fold": 0, "epoch": 3, "weight": 1.0}],
        "hflip": False,
        "postprocess": asdict(settings),
    }


def test_the_networks_of_an_ensemble_are_those_of_its_header():
    networks = {"members": [{"model": "demo", "weight": 0.5}], "hflip": True}
    header = random_predictions().header | {"ensemble": networks | {"size_rule": "mean", "k": None}}
    assert describe_networks(header) == networks


@pytest.mark.parametrize(
    ("stored", "sizes"),
    [
        ({"size_rule": "percentile", "k": 1.6}, {"size_rule": "percentile", "k": 1.6}),
        ({"size_rule": "mean", "k": None}, {"size_rule": "mean"}),
        ({"size_rule": "percentile", "k": "x"}, {"size_rule": "percentile", "k": None}),
        ({"size_rule": 5, "k": 2}, {"size_rule": "mean"}),
        ("text", {"size_rule": "mean"}),
        (None, {"size_rule": "mean"}),
    ],
)
def test_stored_sizes_reads_any_header(stored, sizes):
    predictions = replace(random_predictions(), header={"img_size": 192, "ensemble": stored})
    assert stored_sizes(predictions.header) == sizes
