"""The file that is copied elsewhere finds the boxes that the project finds."""

import ast
import csv
import io
import json
import shutil
import sys
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scripts import predict_onnx
from src import export
from src.datasets.detection_dataset import shrink_image
from src.datasets.sample_options import Reduction
from src.experiments.checkpoints import load_checkpoint
from src.experiments.runs import Run
from src.radiographs.pictures import read_picture
from src.radiographs.pixels import as_float
from src.structures import Fit, Grey, ShownArea
from src.system.files import write_json
from src.train_runner import main
from tests.conftest import run_main

REASON = "needs pip install -r requirements-export.txt"
onnx, *_ = (pytest.importorskip(name, reason=REASON) for name in export.PACKAGES)

SCRIPT = Path(predict_onnx.__file__).resolve()
SIZE = 192
FILE_SIZES = [(1024, 1024), (384, 200), (217, 300), (150, 160), (100, 900), (768, 768)]
AREAS = [ShownArea(), ShownArea(fit="pad"), ShownArea(source_crop=250)]
THRESHOLD = "0.2"
# Of coordinates that are rounded to .1 pixel, and of scores rounded to four places.
BOX_TOLERANCE = 0.1 + export.TOLERANCE * 1024
SCORE_TOLERANCE = 1e-4 + export.TOLERANCE


def noise(size, *, dtype=np.uint8, seed=0):
    """Draw an image of clouds and noise."""
    random = np.random.default_rng(seed)
    clouds = Image.fromarray(random.random((6, 6)).astype(np.float32))
    smooth = np.asarray(clouds.resize(size[::-1], Image.Resampling.BICUBIC))
    values = (smooth + 0.1 * random.standard_normal(size)).clip(0, 1)
    return (values * (255 if dtype == np.uint8 else 4000)).astype(dtype)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a folder of pictures of many kinds."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(noise((1024, 1024), seed=1)).save(folder / "square.png")
    Image.fromarray(noise((500, 331), seed=2)).save(folder / "tall.png")
    Image.fromarray(noise((150, 180), seed=3)).save(folder / "small.png")
    Image.fromarray(noise((600, 60), seed=8)).save(
        folder / "narrow.png"
    )  # most boxes lie beside it
    Image.fromarray(noise((400, 700), seed=4)).save(folder / "wide.jpg", quality=95)
    Image.fromarray(noise((300, 420), dtype=np.uint16, seed=5)).save(folder / "deep.png")
    planes = np.repeat(noise((310, 270), seed=6)[..., None], 3, axis=2)
    Image.fromarray(planes).save(folder / "planes.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: a quarter turn
    Image.fromarray(noise((260, 500), seed=7)).save(folder / "turned.jpg", exif=turned)
    return folder


@pytest.fixture(scope="module")
def graph(talkative, trained, tmp_path_factory):
    """Return an exported file."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    run = make_run(talkative, trained, path.parent, "squeeze", "auto")
    assert run_export(run, path) == 0
    return path


def make_run(talkative, trained, place, fit, reduction):
    """Make a run that was trained with another way of making inputs."""
    run = Run("demo", 0, "", place / "runs")
    checkpoint = load_checkpoint(Run("demo", 0, "", talkative).checkpoint_path(1), "demo")
    settings = replace(checkpoint.facts.settings, fit=fit, reduction=reduction)
    replace(checkpoint, facts=replace(checkpoint.facts, settings=settings)).save(
        run.checkpoint_path(1)
    )
    stored = json.loads(trained.experiment_path.read_text())
    write_json(run.experiment_path, stored | {"settings": asdict(settings)})
    return run


def run_export(run, path):
    return run_main(export.main, run.dir, "--out", path)


def read_boxes(text):
    table = pd.read_csv(io.StringIO(text))
    return table[["file", "x", "y", "width", "height", "score"]]


def predict(call_main, model, images):
    """Return what the script prints of all images, with names as in boxes.csv."""
    paths = sorted(images.iterdir())
    outcome = call_main(predict_onnx.main, model, *paths, "--threshold", THRESHOLD)
    assert outcome.code == 0, outcome.err
    return read_boxes(outcome.out.replace(f"{images}/", ""))


@pytest.mark.parametrize(("fit", "reduction"), list(product(get_args(Fit), get_args(Reduction))))
def test_boxes_are_those_of_generate_predictions(
    call_main, talkative, trained, graph, images, tmp_path, monkeypatch, fit, reduction
):
    def copy_graph(path, _, metadata):
        copied = onnx.load(graph)
        onnx.helper.set_model_props(copied, metadata)
        onnx.save(copied, path)

    monkeypatch.setattr("src.onnx_export.graph.write_graph", copy_graph)
    run = make_run(talkative, trained, tmp_path, fit, reduction)
    assert run_export(run, tmp_path / "model.onnx") == 0
    outcome = call_main(
        main, "--action", "generate_predictions", "--model", "demo", "--num-workers", "0",
        "--input", images, "--output-dir", run.output_dir, "--out", tmp_path / "found",
        "--threshold", THRESHOLD,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    expected = read_boxes(next((tmp_path / "found").rglob("boxes.csv")).read_text())
    found = predict(call_main, tmp_path / "model.onnx", images)
    assert len(found) > 2 * len(list(images.iterdir()))
    assert found["file"].tolist() == expected["file"].tolist()
    columns = ["x", "y", "width", "height"]
    np.testing.assert_allclose(found[columns], expected[columns], rtol=0, atol=BOX_TOLERANCE)
    np.testing.assert_allclose(found.score, expected.score, rtol=0, atol=SCORE_TOLERANCE)


@pytest.mark.parametrize("file_size", FILE_SIZES, ids=str)
@pytest.mark.parametrize(("shown", "reduction"), list(product(AREAS, get_args(Reduction))), ids=str)
def test_an_image_becomes_the_input_that_it_becomes_here(file_size, shown, reduction):
    image = noise(file_size)
    facts = {"img_size": str(SIZE), "source_crop": json.dumps(shown.source_crop),
             "fit": shown.fit, "reduction": reduction}  # fmt: skip
    pixels, corner, step = predict_onnx.make_input(as_float(image), facts)
    expected = as_float(shrink_image(image, SIZE, reduction, shown))
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-6)
    sides = np.array(shown.size(file_size)[::-1])
    assert (step * SIZE).tolist() == sides.tolist()
    assert (2 * corner + sides).tolist() == list(file_size[::-1])


@pytest.mark.parametrize("grey", get_args(Grey))
def test_a_picture_has_the_grey_values_that_it_has_here(images, tmp_path, grey):
    Image.fromarray(np.full((64, 64), 700, np.uint16)).save(tmp_path / "flat.png")
    for path in (*images.iterdir(), tmp_path / "flat.png"):
        expected = as_float(read_picture(path, grey=grey))
        np.testing.assert_array_equal(predict_onnx.read_grey(path, grey), expected, str(path))


def test_boxes_are_cut_to_their_image_and_left_out_beside_it():
    boxes = np.array([[[80, 0, 96, 32], [0, 0, 50, 50], [80, 0, 96, 32]]], np.float32)
    found = boxes, np.array([[0.5, 0.4, 0.09]], np.float32), np.zeros((1, 3))
    facts = {"img_size": "192", "source_crop": "null", "fit": "pad", "reduction": "area",
             "threshold": "0.5"}  # fmt: skip
    rows = predict_onnx.find_boxes(
        SimpleNamespace(run=lambda *_: found), np.zeros((600, 60), np.float32), facts
    )
    assert rows == [["0.0", "0.0", "30.0", "100.0", "0.5000"]]  # 600 / 192 pixels for each, -270


def test_an_image_without_boxes_has_a_row(call_main, graph, images):
    outcome = call_main(predict_onnx.main, graph, images / "tall.png", "--threshold", "6")
    assert outcome.out.splitlines() == [
        "file,x,y,width,height,score", f"{images}/tall.png,,,,,"
    ]  # fmt: skip


def test_a_copy_works_elsewhere_at_the_threshold_of_the_file(
    run_command, call_main, graph, images, tmp_path
):
    copy = shutil.copy(SCRIPT, tmp_path)
    outcome = run_command("-I", copy, graph, images / "square.png", cwd=tmp_path)
    known = json.loads(onnx_facts(graph)["threshold"])
    arguments = (graph, images / "square.png", "--threshold", known)
    assert outcome.out == call_main(predict_onnx.main, *arguments).out
    assert len(list(csv.reader(outcome.out.splitlines()))) > 2
    assert outcome.err == ""


def onnx_facts(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_it_imports_nothing_but_three_packages():
    roots = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        names = [alias.name for alias in getattr(node, "names", [])]
        roots |= {(getattr(node, "module", None) or name).split(".")[0] for name in names}
    assert roots - sys.stdlib_module_names == {"cv2", "numpy", "onnxruntime"}


@pytest.mark.parametrize("kind", ["missing", "text", "foreign", "older"])
def test_a_file_that_is_no_exported_network_is_refused_in_one_line(
    call_main, graph, images, tmp_path, kind
):
    model = tmp_path / "model.onnx"
    if kind == "text":
        model.write_text("no network")
    elif kind != "missing":
        copied = onnx.load(graph)
        facts = {name: fact for name, fact in onnx_facts(graph).items() if name != "fit"}
        onnx.helper.set_model_props(copied, facts if kind == "older" else {})
        onnx.save(copied, model)
    outcome = call_main(predict_onnx.main, model, images / "tall.png")
    expected = f"error: {model}: no such file, or none that src/export.py wrote\n"
    assert (outcome.code, outcome.err, outcome.out) == (2, expected, "")


@pytest.mark.parametrize("kind", ["missing", "text", "colour", "empty"])
def test_a_file_that_is_no_grey_picture_is_refused_in_one_line(call_main, graph, tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "colour":
        Image.new("RGB", (64, 64), (90, 80, 70)).save(path)
    elif kind != "missing":
        path.write_text("text" if kind == "text" else "")
    outcome = call_main(predict_onnx.main, graph, path)
    expected = f"error: {path}: no such file, or no grey PNG or JPEG picture\n"
    assert (outcome.code, outcome.err) == (2, expected)


def test_a_name_that_is_no_text_is_printed_with_escapes(call_main, graph, images, tmp_path):
    path = tmp_path / "\udcff.png"
    shutil.copy(images / "small.png", path)
    outcome = call_main(predict_onnx.main, graph, path)
    assert outcome.code == 0
    assert "\\xff.png" in outcome.out
