"""The table of timm's networks says what came of each, and is added to, never begun anew."""

import csv

import pytest

from scripts import try_encoders
from scripts.try_encoders import main, try_encoder


@pytest.fixture
def table(tmp_path, call_main):
    """Return a function that tries networks, and reads the table."""
    path = tmp_path / "encoders.csv"

    def call(*models):
        outcome = call_main(main, "--models", *models, "--out", path)
        assert outcome.code == 0, outcome.err
        with path.open(newline="") as file:
            return {row["model"]: row for row in csv.DictReader(file)}

    return call


def test_a_network_that_serves_is_described():
    assert try_encoder("convnext_atto") == {
        "model": "convnext_atto",
        "works": "yes",
        "channels": "40 80 160 320",
        "parameters_m": "3.4",
        "idle": 0,
        "weights": "by name",
    }


def test_a_network_that_is_refused_has_a_reason():
    found = try_encoder("levit_128s")
    assert (found["works"], found["why"]) == (
        "no",
        "it has maps of stride 16, 32, 64 and none of 4, 8",
    )


def test_weights_under_a_folder_of_names_find_their_place():
    """timm's whole TResNet keeps its layers in `body.`, its feature maps in `body_`."""
    assert try_encoder("tresnet_m")["weights"] == "by name"


def test_parameters_that_no_gradient_reaches_are_counted(monkeypatch):
    from torch import nn

    from src.retinanet import encoders

    def build_with_idle_layer(*arguments, **options):
        encoder = build_encoder(*arguments, **options)
        encoder.idle = nn.Linear(2, 2)
        return encoder

    build_encoder = encoders.build_encoder
    monkeypatch.setattr(encoders, "build_encoder", build_with_idle_layer)
    assert try_encoder("convnext_atto")["idle"] == 2


def test_rows_are_added_to_those_that_are_there(table, monkeypatch):
    first = table("resnet10t")
    monkeypatch.setattr(try_encoders, "try_encoder", lambda model: {"model": model, "works": "no"})
    both = table("resnet10t", "convnext_atto")
    assert list(both) == ["convnext_atto", "resnet10t"]
    assert both["resnet10t"] == first["resnet10t"]
    assert first["resnet10t"]["family"] == "resnet"


def test_another_file_is_not_taken_for_the_table(tmp_path, call_main):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    outcome = call_main(main, "--models", "resnet10t", "--out", path)
    assert (outcome.code, len(outcome.errors())) == (2, 1)
    assert "not a table of encoders" in outcome.err
    assert path.read_text() == "a,b\n1,2\n"
