"""A network as an ONNX file gives what it gives in PyTorch."""

import json
import os
import shlex
import shutil
import sys
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from src import export
from src.datasets.sample_options import Reduction, SampleOptions
from src.datasets.test_dataset import TestDataset
from src.experiments.checkpoints import load_checkpoint
from src.experiments.networks import build_model
from src.experiments.table import EXPERIMENTS, get_experiment
from src.onnx_export.padded import RESULTS, PaddedDetector
from src.radiographs.image_index import index_images
from src.retinanet.anchors import make_anchors
from src.retinanet.candidates import find_candidates, suppress
from src.structures import CLASS_NAMES, MAX_CANDIDATES, Detections, Grey, RawOutputs
from src.system.errors import InputError
from tests.made_checkpoints import make_checkpoint
from tests.paths import ROOT, shared
from tests.test_readme import EXPORT, README

REASON = "needs pip install -r requirements-export.txt"
onnx, onnxruntime, _ = (pytest.importorskip(name, reason=REASON) for name in export.PACKAGES)
onnx_check = pytest.importorskip("src.onnx_export.check")
onnx_graph = pytest.importorskip("src.onnx_export.graph")

SIZE = (128, 128)
ANCHORS = make_anchors(SIZE, (3,))
N_ANCHORS = len(ANCHORS)
IMG_SIZE = get_experiment("demo").img_size


class PixelNetwork(nn.Module):
    """Takes its outputs from the pixels, so that an image can say anything."""

    def forward(self, images):
        pixels = images.flatten(1)
        deltas = 20 * pixels[:, N_ANCHORS : 5 * N_ANCHORS].unflatten(1, (N_ANCHORS, 4)) - 10
        return RawOutputs(pixels[:, :N_ANCHORS], deltas, pixels[:, -3:].log_softmax(dim=1))


def draw_images(top_scores, *, levels=None, seed=0):
    """Draw what PixelNetwork reads as scores up to those given, one image for each.

    Args:
        levels: so many different scores; None for all different ones.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(len(top_scores), 1, *SIZE, generator=generator)
    scores = images.view(len(images), -1)[:, :N_ANCHORS]
    if levels is not None:
        scores.copy_((scores * levels).ceil() / levels)
    scores *= torch.tensor(top_scores)[:, None]
    return images


def run_graph(path, images):
    """Return the results of a file as it is."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": images.numpy()})
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True))


def check(path, detector, images):
    return onnx_check.check_graph(path, detector, images, len(images))


def assert_equal(found, expected):
    for i, image in enumerate(expected):
        n = len(image.scores)
        np.testing.assert_allclose(found["scores"][i, :n], image.scores, atol=1e-6)
        np.testing.assert_allclose(found["boxes_xyxy"][i, :n], image.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(found["class_probs"][i], image.class_probs, atol=1e-6)
        assert not found["scores"][i, n:].any() and not found["boxes_xyxy"][i, n:].any()


def messages(outcome):
    """Return what a command said on standard error, without its progress bar."""
    return [line for line in outcome.errors() if not line.startswith("check:")]


def pixel_detector(nms_iou, max_boxes=MAX_CANDIDATES):
    return PaddedDetector(PixelNetwork(), ANCHORS, SIZE, nms_iou=nms_iou, max_boxes=max_boxes)


@pytest.fixture(scope="module")
def with_nms(tmp_path_factory):
    path = tmp_path_factory.mktemp("graphs") / "with nms.onnx"
    onnx_graph.write_graph(path, pixel_detector(0.05), {"key": "value"})
    return path


@pytest.fixture(scope="module")
def without_nms(tmp_path_factory):
    path = tmp_path_factory.mktemp("graphs") / "without nms.onnx"
    onnx_graph.write_graph(path, pixel_detector(None, max_boxes=40), {})
    return path


@pytest.fixture(scope="module")
def eager(trained, tmp_path_factory):
    """Return a run of which two epochs are trained and which sees boxes everywhere."""
    run = replace(trained, output_dir=tmp_path_factory.mktemp("eager"))
    path = run.checkpoint_path(1)
    path.parent.mkdir(parents=True)
    shutil.copy(trained.experiment_path, run.experiment_path)
    checkpoint = load_checkpoint(trained.checkpoint_path(1), "demo")
    checkpoint.model["class_head.output.weight"] *= 30
    checkpoint.model["class_head.output.bias"] += 3
    checkpoint.save(path)
    return run


@pytest.fixture(scope="module")
def exported(eager, phantoms, run_command, tmp_path_factory):
    """Return the file that the README's command makes of the eager run, and what it said."""
    place = tmp_path_factory.mktemp("a clone")
    (place / "src").symlink_to(ROOT / "src")
    (place / "output").symlink_to(eager.output_dir)
    (place / "my_images").symlink_to(phantoms / "stage_2_test_images")
    (line,) = EXPORT.findall(README)
    _, *command = shlex.split(line.replace("${MODEL}", eager.model))
    outcome = run_command(*command, cwd=place)
    return eager.output_dir / "model.onnx", outcome


@pytest.fixture
def call_export(call_main, exported, monkeypatch):
    """Return a function that runs the command on the exported file, whose network may change."""

    def call(*arguments, shift=0.0):
        def copy_graph(path, _, metadata):
            graph = onnx.load(exported[0])
            (bias,) = (i for i in graph.graph.initializer if "box_head.output.bias" in i.name)
            values = onnx.numpy_helper.to_array(bias) + shift
            bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
            onnx.helper.set_model_props(graph, metadata)
            onnx.save(graph, path)

        monkeypatch.setattr("src.onnx_export.graph.write_graph", copy_graph)
        return call_main(export.main, *arguments)

    return call


@pytest.mark.parametrize("top_scores", [[0.9], [0.5, 0.02, 0.04], [1.0, 0.03, 0.026, 0.0, 0.2]])
def test_graph_equals_candidates_and_suppression(with_nms, top_scores):
    images = draw_images(top_scores)
    candidates = find_candidates(PixelNetwork()(images), ANCHORS, SIZE)
    assert len(candidates[0].scores) == MAX_CANDIDATES
    expected = [suppress([image], 0.05)[0] for image in candidates]
    assert 1 < len(expected[0].scores) < 100
    assert_equal(run_graph(with_nms, images), expected)


def test_graph_takes_the_first_of_equal_scores(with_nms):
    images = draw_images([0.9, 0.6], levels=3)
    candidates = find_candidates(PixelNetwork()(images), ANCHORS, SIZE)
    assert len(candidates[0].scores.unique()) < 3
    expected = [suppress([image], 0.05)[0] for image in candidates]
    assert_equal(run_graph(with_nms, images), expected)


def test_graph_without_suppression_gives_the_best_candidates(without_nms):
    images = draw_images([0.9, 0.0252, 0.01])
    candidates = find_candidates(PixelNetwork()(images), ANCHORS, SIZE)
    assert 0 < len(candidates[1].scores) < 40
    found = run_graph(without_nms, images)
    assert found["boxes_xyxy"].shape == (3, 40, 4)
    expected = [Detections(c.boxes_xyxy[:40], c.scores[:40], c.class_probs) for c in candidates]
    assert_equal(found, expected)


def test_graph_is_sound_and_says_nothing_of_the_machine(with_nms):
    graph = onnx.load(with_nms)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.opset_import[0].version >= 17
    assert [output.name for output in graph.graph.output] == list(RESULTS)
    assert {entry.key: entry.value for entry in graph.metadata_props} == {"key": "value"}
    assert str(ROOT).encode() not in with_nms.read_bytes()


def test_a_network_too_large_for_one_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_graph, "MAX_BYTES", 1e3)
    detector = pixel_detector(0.05)
    detector.network.weights = nn.Parameter(torch.zeros(1000))
    with pytest.raises(InputError, match="do not fit into one ONNX file"):
        onnx_graph.write_graph(tmp_path / "model.onnx", detector, {})


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (pixel_detector(0.2), "boxes"),
        (pixel_detector(None), "boxes"),
        (pixel_detector(0.05, max_boxes=5), "boxes"),
        (PaddedDetector(PixelNetwork(), ANCHORS + 1, SIZE, nms_iou=0.05), "candidates"),
    ],
)
def test_check_finds_a_graph_that_decodes_otherwise(with_nms, wrong, name):
    images = draw_images([0.9, 0.5, 0.02, 0.1])
    check(with_nms, pixel_detector(0.05), images).require(1e-6)
    result = check(with_nms, wrong, images)
    with pytest.raises(onnx_check.CheckError, match=f"{name} by .* more than --tolerance 0.0001"):
        result.require(1e-4)


def test_check_counts_what_it_compared(with_nms):
    images = draw_images([0.9, 0.02, 0.02, 0.02])
    result = check(with_nms, pixel_detector(0.05), images)
    (best,) = suppress(find_candidates(PixelNetwork()(images[:1]), ANCHORS, SIZE), 0.05)
    assert (result.n_images, result.n_candidates, result.n_boxes) == (
        4, MAX_CANDIDATES, len(best.scores)
    )  # fmt: skip


def test_check_takes_no_number_for_no_agreement(with_nms):
    images = draw_images([0.9, 0.9, 0.9, 0.9])
    images[2, 0, -1, -1] = torch.nan
    result = check(with_nms, pixel_detector(0.05), images)
    with pytest.raises(onnx_check.CheckError, match="class probabilities by nan"):
        result.require(1.0)


def test_export_checks_and_says_what_it_found(exported):
    path, outcome = exported
    assert messages(outcome) == []
    lines = outcome.out.splitlines()
    assert lines[0].startswith("4 images in batches of 1 and 3: ")  # three files, one seen twice
    assert lines[1].endswith("largest difference")
    assert {float(line.split()[-1]) < 1e-4 for line in lines[2:-1]} == {True}
    assert lines[-1] == "output/model.onnx" and path.is_file()


def test_exported_file_tells_how_to_use_it(exported):
    session = onnxruntime.InferenceSession(exported[0], providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.shape) == ("images", ["batch", 1, IMG_SIZE, IMG_SIZE])
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["experiment"], facts["tag"], facts["reduction"]) == ("demo", "", "auto")
    expected = {
        "fold": 0, "epoch": 1, "img_size": IMG_SIZE, "source_crop": None, "threshold": 0.3,
        "nms_iou": 0.05, "max_boxes": MAX_CANDIDATES, "class_names": list(CLASS_NAMES),
    }  # fmt: skip
    assert {name: json.loads(facts[name]) for name in expected} == expected
    assert facts["grey"] == "viewer"
    assert facts["preprocessing"] == f"{export.GREY_VALUES['viewer']} {export.SHOWN['auto']}"
    assert "255" in facts["preprocessing"] and "threshold" in facts["decoding"]


def test_every_reduction_is_told_to_the_user_of_the_file():
    assert set(export.SHOWN) == set(get_args(Reduction))
    assert set(export.GREY_VALUES) == set(get_args(Grey))
    assert "mean over the area" in export.SHOWN["area"]


def test_exported_network_agrees_on_real_images(exported, eager):
    files = index_images(shared("lungs/test")).files()[:6]
    dataset = TestDataset(files, SampleOptions(img_size=IMG_SIZE))
    network = build_model(get_experiment("demo")).eval()
    network.load_state_dict(load_checkpoint(eager.checkpoint_path(1), "demo").model)
    images = torch.stack([dataset[i].image for i in range(len(files))])
    detector = PaddedDetector(network, network.anchors(images), (IMG_SIZE, IMG_SIZE), nms_iou=0.05)
    result = check(exported[0], detector, images)
    assert result.n_candidates > 2 * result.n_boxes > 2 * len(files)
    result.require(1e-4)


def test_an_experiment_is_exported_with_its_own_anchors_and_limits(
    trained, tmp_path, monkeypatch, call_main
):
    settings = replace(
        get_experiment("demo"),
        anchor_size=2.0,
        anchor_ratios=(1.0,),
        min_score=0.001,
        min_share_of_top=0.2,
        voting_iou=0.5,
    )
    monkeypatch.setitem(EXPERIMENTS, "demo", settings)
    run = replace(trained, output_dir=tmp_path)
    torch.manual_seed(0)
    network = build_model(settings).eval()
    nn.init.normal_(network.class_head.output.weight, std=0.1)
    make_checkpoint(network.state_dict(), settings=settings).save(run.checkpoint_path(0))
    shutil.copy(trained.experiment_path, run.experiment_path)
    outcome = call_main(export.main, run.dir, "--out", tmp_path / "model.onnx")
    assert outcome.code == 0, outcome.err
    size = (IMG_SIZE, IMG_SIZE)
    images = torch.stack(onnx_check.synthetic_images(size))
    with torch.no_grad():
        outputs = network(images)
    candidates = find_candidates(outputs, network.anchors(images), size, settings.limits)
    assert any((image.scores < 0.5 * image.scores[0]).any() for image in candidates)
    expected = [suppress([image], 0.05)[0] for image in candidates]
    found = run_graph(tmp_path / "model.onnx", images)
    for i, image in enumerate(expected):
        assert (found["scores"][i] > 0).sum() == len(image.scores) > 1
        np.testing.assert_allclose(
            found["boxes_xyxy"][i, : len(image.scores)], image.boxes_xyxy, atol=0.02
        )


@pytest.mark.parametrize(
    "changes",
    [{"normalisation": "encoder"}, {"normalisation": (0.5, 0.25), "input_channels": 1}],
    ids=["encoder", "by hand"],
)
def test_an_exported_graph_normalises_by_itself(changes, trained, tmp_path, monkeypatch, call_main):
    settings = replace(get_experiment("demo"), **changes)
    monkeypatch.setitem(EXPERIMENTS, "demo", settings)
    run = replace(trained, output_dir=tmp_path)
    torch.manual_seed(0)
    network = build_model(settings).eval()
    make_checkpoint(network.state_dict(), settings=settings).save(run.checkpoint_path(0))
    shutil.copy(trained.experiment_path, run.experiment_path)
    outcome = call_main(export.main, run.dir, "--out", tmp_path / "model.onnx")
    assert outcome.code == 0, outcome.err
    images = torch.stack(onnx_check.synthetic_images((IMG_SIZE, IMG_SIZE)))
    assert 0 <= images.min() < images.max() <= 1
    with torch.no_grad():
        expected = network(images).class_log_probs.exp()
        network.input_mean = None
        assert (network(images).class_log_probs.exp() - expected).abs().max() > 1e-3
    found = run_graph(tmp_path / "model.onnx", images)
    np.testing.assert_allclose(found["class_probs"], expected, atol=1e-6)


def test_a_failed_check_leaves_no_file(call_export, eager, tmp_path):
    out = tmp_path / "out" / "model.onnx"
    outcome = call_export(eager.dir, "--out", out, shift=0.01)
    assert outcome.code == 2
    (line,) = messages(outcome)
    assert "deltas at the anchors by 1.0e-02, more than --tolerance 0.0001" in line
    assert list(out.parent.iterdir()) == []
    assert call_export(eager.dir, "--out", out, "--tolerance", "0.02", shift=0.01).code == 0
    assert out.is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{dir}", "--epoch", "7"], ["007.safetensors", "it has epochs [1]"]),
        (["{dir}/checkpoints"], ["experiment.json", "no such file"]),
        (["nowhere"], ["nowhere", "no such folder"]),
        (["{dir}", "--nms-iou", "1.5"], ["--nms-iou: 1.5"]),
        (["{dir}", "--nms-iou", "0.5", "--without-nms"], ["--without-nms", "--nms-iou"]),
        (["{dir}", "--max-boxes", "1001"], ["--max-boxes 1001", "1000"]),
        (["{dir}", "--tolerance", "nan"], ["--tolerance: 'nan'"]),
        (["{dir}", "--check-images", "nowhere"], ["nowhere", "no such file or folder"]),
    ],
)
def test_export_refuses_what_it_cannot_do_in_one_line(call_export, eager, arguments, words):
    outcome = call_export(*(argument.format(dir=eager.dir) for argument in arguments))
    assert outcome.code == 2
    (line,) = messages(outcome)
    assert line.startswith("error: ") and all(word in line for word in words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out", "."], ["a folder is in its place"]),
        (["--check-images", ROOT / "README.md"], ["README.md"]),
    ],
)
def test_export_looks_at_its_files_before_it_makes_the_graph(
    call_main, eager, monkeypatch, flags, words
):
    monkeypatch.setattr("src.onnx_export.graph.write_graph", None)
    outcome = call_main(export.main, eager.dir, *flags)
    assert outcome.code == 2
    (line,) = messages(outcome)
    assert all(word in line for word in words)


def test_export_names_the_file_that_lists_missing_packages(call_main, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else True)
    outcome = call_main(export.main, "nowhere")
    assert outcome.code == 2
    (line,) = messages(outcome)
    assert line.startswith("error: exporting needs onnxscript: pip install -r ")
    assert (ROOT / "requirements-export.txt").is_file() and "requirements-export.txt" in line


def test_onnxruntime_is_told_to_report_nothing_before_it_is_imported(monkeypatch, tmp_path):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError):
        onnx_check.check_graph(tmp_path / "graph.onnx", None, (), 0)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
