"""A GPU gives what a CPU gives; skipped where there is none."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from src.experiments.networks import build_model
from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS
from src.prediction.inference import predict
from src.retinanet.acceleration import Acceleration
from tests.conftest import TRAINING
from tests.made_batches import ON_CPU, PROVENANCE, make_batches, model_that_finds
from tests.paths import ROOT
from tests.retinanet.test_model import tiny_model
from tests.training.test_engine import experiment
from tests.training.test_learning import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = torch.device("cuda")
SMALL = replace(
    EXPERIMENTS["resnet18_256_scratch"], batch_norm="frozen", dropout_class=0.0, dropout_global=0.0
)
TOLERANCES = {"fp32": 1e-3, "bf16": 0.02, "fp16": 0.02}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")  # a first step may overflow
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("means", [{}, {"recomputes_encoder": True}, {"compiles": True}])
def test_training_on_a_gpu_is_that_on_a_cpu(precision, means):
    losses = []
    for acceleration in (ON_CPU, Acceleration(device=GPU, precision=precision, **means)):
        torch.manual_seed(0)
        model = build_model(SMALL)
        acceleration.place_for_training(model)
        options = {"settings": experiment(learning_rate=1e-5), "acceleration": acceleration}
        losses.append(train(model, make_batches([4, 3]), **options))
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCES[precision])


@pytest.mark.parametrize("precision", TOLERANCES)
def test_prediction_on_a_gpu_finds_what_a_cpu_finds(precision):
    found = []
    for acceleration in (ON_CPU, Acceleration(device=GPU, precision=precision)):
        model = model_that_finds()
        acceleration.place_for_inference(model)
        batches = make_batches([4, 3])
        found.append(predict(model, batches, acceleration=acceleration, provenance=PROVENANCE))
    assert len(found[1].scores) == pytest.approx(len(found[0].scores), rel=0.05)
    np.testing.assert_allclose(found[1].class_probs, found[0].class_probs, atol=0.01)
    best = [each.scores[each.offsets[:-1]] for each in found]
    np.testing.assert_allclose(best[1], best[0], atol=0.01)


def count_waits(n_images):
    """Count what PyTorch itself sees of a warm training step's waits."""
    model, acceleration = tiny_model(), Acceleration(device=GPU)
    acceleration.place_for_training(model)
    train(model, make_batches([n_images]), acceleration=acceleration)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            train(model, make_batches([n_images]), acceleration=acceleration)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in noted)


def test_a_step_waits_as_often_for_many_images_as_for_few():
    assert 0 < count_waits(2) == count_waits(9) < 12


def test_deterministic_training_repeats_itself(phantoms, run_command, tmp_path):
    for name in ("one", "other"):
        folders = ("--data-dir", phantoms, "--output-dir", tmp_path / name)
        flags = (*TRAINING, *folders, "--device", "cuda", "--deterministic")
        run_command(ROOT / "src" / "train_runner.py", "--action", "train", *flags)
    one, other = (Run("demo", 0, "", tmp_path / name).history_path for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
