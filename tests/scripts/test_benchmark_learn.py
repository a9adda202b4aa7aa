import json

import numpy as np
import torch
from torch import nn

from scripts import benchmark
from scripts.benchmarks import learn
from tests.made_batches import ON_CPU, make_batches


def test_learn_trains_ours_and_torchvisions_network(phantoms, tmp_path, call_main):
    outcome = call_main(
        benchmark.main, "learn", "--data-dir", phantoms, "--seconds", "1", "--model", "demo",
        "--peers", "resnet18", "--json", tmp_path / "n.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    ours, peer = json.loads((tmp_path / "n.json").read_text())["rows"]
    assert (ours["network"], peer["network"]) == ("demo", "torchvision RetinaNet resnet18")
    for row in (ours, peer):
        assert (row["side px"], row["weights"]) == (192, "random")
        assert row["epochs"] >= 1
        assert row["processor s"] > 0
        assert 0 <= row["score"] <= 1


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


def test_a_peer_is_scored_at_its_best_threshold():
    score = learn._score_peer(Seer(), make_batches([2, 2]), ON_CPU)
    assert score == 1.0  # above .6 only the two true boxes are left


def test_boxes_of_torchvision_become_corner_and_size():
    boxes = torch.tensor([[1.0, 2.0, 11.0, 22.0]])
    np.testing.assert_array_equal(learn._as_xywh(boxes), [[1, 2, 10, 20]])
    assert boxes.tolist() == [[1, 2, 11, 22]]
