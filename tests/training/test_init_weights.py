"""--init-weights: a fresh training that begins with the weights of any checkpoint that fits."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from src.datasets.loaders import load_labelled_images
from src.experiments.checkpoints import CheckpointError, load_checkpoint
from src.experiments.experiment_file import WeightsFile, read_stored_training
from src.experiments.networks import build_model
from src.experiments.runs import Run
from src.train_runner import main
from tests.conftest import TRAINING
from tests.made_checkpoints import as_version_1, make_checkpoint
from tests.training.test_training import SMALL, options, started


@pytest.fixture(scope="module")
def images(phantoms):
    return load_labelled_images(phantoms, 0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a checkpoint of another experiment, another size and another schedule."""
    path = tmp_path_factory.mktemp("of somebody else") / "weights.safetensors"
    settings = replace(SMALL, img_size=256, n_epochs=30, scheduler="plateau", focal_alpha=0.5)
    torch.manual_seed(3)
    model = build_model(settings)
    saved = make_checkpoint(model.state_dict(), experiment="theirs", settings=settings, epoch=15)
    saved.save(path)
    return path


def assert_begins_with(training, path):
    saved = load_checkpoint(path).model
    own = training.model.state_dict()
    assert saved.keys() == own.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize("form", ["today", "version 1"])
def test_the_weights_are_the_files_and_all_else_is_fresh(weights, images, tmp_path, form):
    if form == "version 1":
        torch.save(as_version_1(load_checkpoint(weights)), tmp_path / "w.pt")
        weights = tmp_path / "w.pt"
    run = Run("demo", 0, "", tmp_path)
    fresh = started(Run("demo", 0, "fresh", tmp_path), SMALL, images, options())
    training = started(run, SMALL, images, options(init_weights=weights))
    assert_begins_with(training, weights)
    assert (training.progress.epoch, training.history) == (0, [])
    optimization = training.learner.optimization
    assert optimization.state() == fresh.learner.optimization.state()
    assert optimization.tensors() == {}
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    stored = read_stored_training(run.experiment_path).init_weights
    assert stored == WeightsFile(path=str(weights), sha256=digest)


def test_a_training_without_it_says_so(images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    started(run, SMALL, images, options())
    assert json.loads(run.experiment_path.read_text())["init_weights"] is None


def test_the_state_of_a_training_serves_as_well(images, tmp_path):
    other = Run("demo", 0, "other", tmp_path)
    trained = started(other, replace(SMALL, n_epochs=1), images, options())
    trained.run()
    run = Run("demo", 0, "", tmp_path)
    training = started(run, SMALL, images, options(init_weights=other.last_checkpoint_path))
    assert_begins_with(training, other.checkpoint_path(0))
    assert training.learner.optimization.tensors() == {}


def test_resume_begins_with_the_weights_or_goes_on_as_usual(weights, images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    both = options(resume=True, init_weights=weights)
    settings = replace(SMALL, scheduler="plateau", n_epochs=1)
    training = started(run, settings, images, both)
    assert_begins_with(training, weights)
    training.run()
    again = started(run, replace(settings, n_epochs=2), images, both)
    assert again.progress.epoch == 1
    assert_begins_with(again, run.last_checkpoint_path)
    gone = options(resume=True, init_weights=tmp_path / "gone.safetensors")
    assert started(run, settings, images, gone).progress.epoch == 1


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"pyramid_width": 24}, r"pyramid\.lateral\.0\.weight has shape \(16, .*, not \(24, "),
        ({"head_depth": 2}, r"box_head\.layers\.2\.weight is missing"),
        ({"encoder": "resnet18"}, r"is missing|has shape"),
        ({"anchor_ratios": (1.0,)}, r"box_head\.output\.weight has shape \(36, .*, not \(12, "),
    ],
)
def test_weights_of_another_network_are_refused_with_the_first_difference(
    weights, images, tmp_path, change, difference
):
    run = Run("demo", 0, "", tmp_path)
    with pytest.raises(CheckpointError, match=difference) as caught:
        started(run, replace(SMALL, **change), images, options(init_weights=weights))
    message = str(caught.value)
    assert message.startswith(f"{weights}: does not fit the network: ")
    assert len(message.splitlines()) == 1
    assert not run.experiment_path.exists()


# As a command


@pytest.fixture
def train(phantoms, call_main, tmp_path):
    def call(*flags):
        folders = ("--data-dir", phantoms, "--output-dir", tmp_path / "out")
        return call_main(main, *TRAINING, *folders, "--num-workers", "0", *flags)

    return call


def test_a_run_goes_on_from_the_weights_of_another(train, trained, tmp_path):
    weights = trained.checkpoint_path(1)
    outcome = train("--run", "tuned", "--init-weights", weights, "--learning-rate", "1e-9")
    assert outcome.code == 0, outcome.err
    tuned = Run("demo", 0, "tuned", tmp_path / "out")
    before, after = load_checkpoint(weights).model, load_checkpoint(tuned.checkpoint_path(0)).model
    for name in ("encoder.net.s4.b1.conv1.conv.weight", "class_head.output.weight"):
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)


def test_the_tuning_is_repeated_with_the_same_weights_alone(
    train, trained, phantoms, call_main, tmp_path
):
    source, moved = tmp_path / "source.safetensors", tmp_path / "moved.safetensors"
    source.write_bytes(trained.checkpoint_path(1).read_bytes())
    assert train("--run", "tuned", "--init-weights", source, "--num-epochs", "1").code == 0
    path = Run("demo", 0, "tuned", tmp_path / "out").experiment_path

    def repeat(name, *flags):
        folders = ("--data-dir", phantoms, "--output-dir", tmp_path / name)
        return call_main(main, "--from-experiment", path, "--num-workers", "0", *folders, *flags)

    outcome = repeat("same")
    assert outcome.code == 0, outcome.err
    first, second = (
        load_checkpoint(Run("demo", 0, tag, tmp_path / folder).checkpoint_path(0)).model
        for tag, folder in (("tuned", "out"), ("", "same"))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)

    source.rename(moved)
    outcome = repeat("gone")
    assert (outcome.code, outcome.errors()) == (2, [f"error: {source}: no such checkpoint"])
    assert repeat("moved", "--init-weights", moved).code == 0
    outcome = repeat("other", "--init-weights", trained.checkpoint_path(0))
    assert outcome.code == 2
    assert "SHA-256" in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_training_that_began_without_is_not_repeated_with_weights(
    trained, phantoms, call_main, tmp_path
):
    folders = ("--data-dir", phantoms, "--output-dir", tmp_path)
    flags = ("--from-experiment", trained.experiment_path, "--init-weights")
    outcome = call_main(main, *flags, trained.checkpoint_path(1), *folders)
    assert outcome.code == 2
    assert "began without" in outcome.err


def test_weights_that_are_not_there_are_refused(train, tmp_path):
    outcome = train("--init-weights", tmp_path / "nowhere.safetensors")
    assert outcome.code == 2
    assert outcome.errors() == [f"error: {tmp_path / 'nowhere.safetensors'}: no such checkpoint"]
