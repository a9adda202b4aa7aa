import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from scripts import benchmark
from scripts.benchmarks import learn
from src.experiments.experiment import Experiment
from src.experiments.runs import Run
from src.experiments.table import get_experiment
from src.prediction.provenance import trained_provenance
from src.scoring.grid import sweep_epoch
from src.training.options import TrainingOptions
from tests.made_batches import ON_CPU, make_batches


def test_learn_trains_ours_and_torchvisions_network_with_every_seed(phantoms, tmp_path, call_main):
    outcome = call_main(
        benchmark.main, "learn", "--data-dir", phantoms, "--seconds", "1", "--model", "demo",
        "--peers", "resnet18", "--seeds", "1", "2", "--json", tmp_path / "n.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    rows = json.loads((tmp_path / "n.json").read_text())["rows"]
    assert [row["network"] for row in rows] == ["demo", "torchvision RetinaNet resnet18"]
    for row in rows:
        assert (row["side px"], row["weights"]) == (192, "random")
        assert row["epochs"] >= 1
        assert row["processor s"] > 0
        for number in ("score", "AP .50"):
            by_seed = [float(value) for value in row[f"{number}, by seed"].split()]
            assert len(by_seed) == 2
            assert row[number] == pytest.approx(sum(by_seed) / 2, abs=1e-3)
            low, high = map(float, row[f"{number}, 95 %"].split(" to "))
            assert 0 <= low <= high <= 1


def test_every_change_makes_a_network_of_each_experiment():
    arguments = argparse.Namespace(
        model=["demo", "lite0_256"],
        set=[["box_loss=giou"], ["ema_decay=0", "n_epochs=3"]],
        peers=["resnet50"],
    )
    networks = list(learn._list_networks(arguments))
    assert [network.name for network in networks] == [
        "demo", "demo box_loss=giou", "demo ema_decay=0 n_epochs=3",
        "lite0_256", "lite0_256 box_loss=giou", "lite0_256 ema_decay=0 n_epochs=3",
        "torchvision RetinaNet resnet50",
    ]  # fmt: skip
    assert networks[4].experiment == replace(networks[3].experiment, box_loss="giou")
    assert (networks[-1].experiment, networks[-1].peer) == (get_experiment("demo"), "resnet50")
    weights = [learn._weights_of(network) for network in networks]
    assert weights == ["random"] * 3 + ["ImageNet"] * 3 + ["random"]


def test_a_network_begins_with_the_weights_that_the_table_names(monkeypatch, tmp_path):
    monkeypatch.setattr(learn.config, "WEIGHTS_DIR", tmp_path)
    given: list[TrainingOptions] = []
    monkeypatch.setattr(learn, "Training", lambda *parts: given.append(parts[-1]))
    for name in ("resnet50", "xrv_resnet50_all"):
        (tmp_path / f"{name}.pth").touch()
    arguments = argparse.Namespace(precision="fp32", fold=0)
    plain = Experiment(encoder="resnet50", batch_size=2, pretrained=True)
    chest = replace(plain, pretrained="xrv_resnet50_all", input_channels=1)
    for experiment, name in ((plain, "resnet50"), (chest, "xrv_resnet50_all")):
        images: Any = None
        learn._make_training(experiment, 0, images, arguments, tmp_path)
        assert given[-1].encoder_weights == tmp_path / f"{name}.pth"


def test_every_epoch_has_dropout_of_its_own(monkeypatch):
    epochs: list[int] = []
    monkeypatch.setattr(
        learn, "train_epoch", lambda learner, batches, progress, **_: epochs.append(progress.epoch)
    )
    training: Any = argparse.Namespace(learner=None, sampler=argparse.Namespace(epoch=0))
    take_steps, _ = learn._our_ways(training)
    for training.sampler.epoch in range(3):
        take_steps([])
    assert epochs == [0, 1, 2]


class Seer(nn.Module):
    """Answers as torchvision's networks do: the boxes of `make_batches`, and a wrong one."""

    def forward(self, images):
        found, self.n_seen = [], getattr(self, "n_seen", 0)
        for _ in images:
            true = [30.0, 40.0, 100.0, 120.0 + self.n_seen]
            boxes = torch.tensor([true, [150.0, 150.0, 180.0, 180.0]])
            scores = torch.tensor([0.9 if self.n_seen % 2 == 0 else 0.2, 0.6])
            found.append({"boxes": boxes, "scores": scores})
            self.n_seen += 1
        return found


def test_a_peers_boxes_become_predictions_with_truth():
    experiment = get_experiment("demo")
    provenance = trained_provenance(Run("demo", 0, "", Path()), experiment, 0)
    predictions = learn._predict_by_peer(Seer(), make_batches([2, 2]), ON_CPU, provenance)
    assert predictions.has_truth
    assert predictions.offsets.tolist() == [0, 2, 4, 6, 8]
    assert sweep_epoch(predictions).max() == 1.0  # above .6 only the two true boxes are left
    assert learn._numbers(predictions)["AP .50"][0] == 1.0  # they are ranked first
