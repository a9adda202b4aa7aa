"""Images that are no squares, padded to squares: `--set fit=pad`."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from src.experiments.checkpoints import load_checkpoint
from src.experiments.runs import Run
from src.prediction.predictions import load_provenance
from src.train_runner import main
from tests.conftest import TRAINING

PREDICT = ("--action", "generate_predictions", "--model", "demo", "--num-workers", "0",
           "--threshold", "0", "--nms", "0.2")  # fmt: skip
SIDE, EDGE = 384, 92  # of the square, and of the black on two of its sides; halved they are whole


@pytest.fixture
def runs(talkative, trained, tmp_path):
    """Return the folder of a run that says that it was trained on padded images."""
    shutil.copytree(talkative, tmp_path / "runs")
    stored = json.loads(trained.experiment_path.read_text())
    stored["settings"]["fit"] = "pad"
    run = Run("demo", 0, "", tmp_path / "runs")
    run.experiment_path.write_text(json.dumps(stored))
    checkpoint = load_checkpoint(run.checkpoint_path(1), "demo")
    facts = replace(checkpoint.facts, settings=replace(checkpoint.facts.settings, fit="pad"))
    replace(checkpoint, facts=facts).save(run.checkpoint_path(1))
    return tmp_path / "runs"


@pytest.mark.parametrize("flags", [(), ("--tta", "hflip")], ids=["plain", "mirrored"])
@pytest.mark.parametrize("is_tall", [True, False], ids=["tall", "wide"])
def test_an_image_is_predicted_as_one_that_was_padded_before(
    call_main, runs, talkative, tmp_path, is_tall, flags
):
    pixels = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE - 2 * EDGE)).astype(np.uint8)
    padding = ((0, 0), (EDGE, EDGE))
    if not is_tall:
        pixels, padding = pixels.T, padding[::-1]
    found = {}
    for name, image, output_dir in (
        ("as it is", pixels, runs),
        ("padded before", np.pad(pixels, padding), talkative),
    ):
        path, out = tmp_path / f"{name}.png", tmp_path / name
        cv2.imwrite(str(path), image)
        outcome = call_main(main, *PREDICT, *flags, "--input", path, "--output-dir", output_dir,
                            "--out", out)  # fmt: skip
        assert outcome.code == 0, outcome.err
        found[name] = pd.read_csv(next(out.rglob("boxes.csv")))
    expected = found["padded before"]
    left, top = (EDGE, 0) if is_tall else (0, EDGE)
    x = (expected[["x"]].assign(x2=expected.x + expected.width) - left).clip(0, pixels.shape[1])
    y = (expected[["y"]].assign(y2=expected.y + expected.height) - top).clip(0, pixels.shape[0])
    expected = expected.assign(x=x.x, width=x.x2 - x.x, y=y.y, height=y.y2 - y.y)
    expected = expected[(expected.width > 0.1) & (expected.height > 0.1)]
    assert len(expected) > 3
    columns = ["x", "y", "width", "height", "score"]
    np.testing.assert_allclose(found["as it is"][columns], expected[columns], rtol=0, atol=0.11)


def test_a_training_stores_how_images_become_squares_and_keeps_it(call_main, phantoms, tmp_path):
    folders = ("--data-dir", phantoms, "--output-dir", tmp_path, "--num-workers", "0")
    run = Run("demo", 0, "fit-pad", tmp_path)

    def train(*flags):
        outcome = call_main(main, "--action", "train", *TRAINING, *folders, *flags)
        assert outcome.code == 0, outcome.err

    train("--set", "fit=pad")
    assert json.loads(run.experiment_path.read_text())["settings"]["fit"] == "pad"
    train("--resume", "--run", run.tag)  # would refuse other settings
    assert load_provenance(run.predictions_path(1)).fit == "pad"
