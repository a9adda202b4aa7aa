import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scripts import benchmark
from scripts.benchmarks import networks, profiling
from scripts.benchmarks.arithmetic import batch_flops
from scripts.benchmarks.memory import BOX_LEVELS, kept_bytes
from src.experiments.networks import build_model
from src.experiments.table import EXPERIMENTS
from src.retinanet.losses import match_anchors
from tests.made_batches import ON_CPU

SMALL = ("--model", "demo", "--batch-size", "2", "--runs", "1", "--threads", "1")


@pytest.fixture(autouse=True)
def _without_processes(monkeypatch):
    """Leave out the processes that measure memory, one for each way."""
    monkeypatch.setattr(networks, "_memory_of", lambda *_: 0)


@torch.no_grad()
@pytest.mark.parametrize("trains", [True, False])
def test_arithmetic_is_what_the_network_does(trains):
    info = EXPERIMENTS["demo"]
    batch = networks.make_batch(info.img_size, 3)
    model = build_model(info)
    anchors = model.anchors(batch.images)
    positive = match_anchors(anchors, [target.boxes_xyxy for target in batch.targets]).positive
    images = batch.to(torch.device("cpu")).images
    needed = model.by_level(positive & trains, images)
    with FlopCounterMode(display=False) as counter:
        model.eval()(images, needed=needed)
    expected = counter.get_total_flops() * (3 if trains else 1)
    assert batch_flops(info, batch, skips=True, trains=trains) == pytest.approx(expected)
    assert batch_flops(info, batch, skips=False, trains=trains) > expected


def test_kept_bytes_are_those_of_a_real_pass():
    experiment = EXPERIMENTS["demo"]
    model = build_model(experiment).train()
    images = torch.rand(2, 1, experiment.img_size, experiment.img_size)
    needed = torch.tensor([[level in BOX_LEVELS for level in model.levels]] * 2)
    sizes = []
    for n_images in (1, 2):
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor, kept=kept):
            return kept.setdefault(tensor.data_ptr(), tensor)

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            outputs = model(images[:n_images], needed=needed[:n_images])
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))
        del outputs
    assert kept_bytes(experiment, torch.float32) == pytest.approx(sizes[1] - sizes[0], rel=0.02)
    assert kept_bytes(experiment) == pytest.approx((sizes[1] - sizes[0]) / 2, rel=0.05)


def test_train_tells_what_was_reached_and_where_the_time_went(call_main, tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "N_RUNS", 1)
    outcome = call_main(
        benchmark.main, "train", *SMALL, "--fastest", "--peak-tflops", "0.5",
        "--json", tmp_path / "n.json", "--profile", tmp_path / "p.txt", "--trace",
        tmp_path / "t.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    (row,) = json.loads((tmp_path / "n.json").read_text())["rows"]
    expected = batch_flops(
        EXPERIMENTS["demo"], networks.make_batch(192, 2), skips=True, trains=True
    )
    assert row["TFLOP/s"] == pytest.approx(expected / row["median s"] / 1e12)
    assert row["of the peak %"] == pytest.approx(200 * row["TFLOP/s"])
    assert "aten::convolution_backward" in (tmp_path / "p.txt").read_text()
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


def test_infer_stands_beside_torchvision(call_main, tmp_path):
    flags = ("--fastest", "--beside-torchvision", "--json", tmp_path / "n.json")
    outcome = call_main(benchmark.main, "infer", *SMALL, *flags)
    assert outcome.code == 0, outcome.err
    ours, peer = json.loads((tmp_path / "n.json").read_text())["rows"]
    assert ours["way"] == "all means, bf16"
    assert peer["way"] == "torchvision retinanet_resnet50_fpn, bf16"
    assert peer["TFLOP/s"] * peer["median s"] > 10 * ours["TFLOP/s"] * ours["median s"]


def test_infer_finds_weaker_boxes_at_the_cost_of_the_whole_box_head(call_main, tmp_path):
    flags = ("--fastest", "--weak-candidates", "--json", tmp_path / "n.json")
    outcome = call_main(benchmark.main, "infer", *SMALL, *flags)
    assert outcome.code == 0, outcome.err
    plain, weak = json.loads((tmp_path / "n.json").read_text())["rows"]
    assert weak["way"] == "+ weaker boxes, all levels"
    batch = networks.make_batch(192, 2)
    expected = [
        batch_flops(EXPERIMENTS["demo"], batch, skips=skips, trains=False)
        for skips in (True, False)
    ]
    assert [row["TFLOP/s"] * row["median s"] * 1e12 for row in (plain, weak)] == pytest.approx(
        expected
    )


def test_a_way_that_does_not_fit_into_the_gpu_is_left_out(monkeypatch, capsys):
    for name, value in {"memory_allocated": 5, "max_memory_allocated": 12}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)

    def make(way):
        if way.name == "large":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return print

    large, small = (networks.Way(name, ON_CPU) for name in ("large", "small"))
    assert networks._try_on_gpu([large, small], make) == [(small, print, 7)]
    assert "large: does not fit" in capsys.readouterr().out


@pytest.mark.parametrize(("model", "n_missed"), [("resnet18_256_scratch", 1), ("lite0_256", 0)])
def test_levels_counts_boxes_without_an_anchor(model, n_missed, tmp_path, call_main):
    (tmp_path / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\na,100,100,72,72,1\na,500,500,300,300,1\n"
    )
    (tmp_path / "stage_2_detailed_class_info.csv").write_text("patientId,class\na,Lung Opacity\n")
    outcome = call_main(benchmark.main, "levels", "--data-dir", tmp_path, "--model", model)
    assert outcome.code == 0, outcome.err
    assert f"\n{n_missed} of 2 boxes have no anchor" in outcome.out
