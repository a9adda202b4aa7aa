"""What `train` makes of its flags: changed settings, several folds, and trainings that go on."""

import json
import signal
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch

from src import train_runner
from src.actions import train as actions
from src.experiments.checkpoints import load_checkpoint
from src.experiments.experiment_file import WeightsFile, read_stored_training
from src.experiments.runs import Run
from src.experiments.shared_weights import write_shared_weights
from src.experiments.table import EXPERIMENTS
from src.retinanet.encoders.eva_x import eva_x_tiny_patch16_224
from src.visualizations.report_settings import summarise_experiment

ONE_EPOCH = ("--model", "demo", "--num-epochs", "1", "--batch-size", "2", "--num-workers", "0",
             "--debug")  # fmt: skip


@pytest.fixture
def train(call_main, phantoms, tmp_path):
    """Return a function that trains, and by default must work."""

    def call(*flags, ok=True):
        folders = ("--data-dir", phantoms, "--output-dir", tmp_path)
        outcome = call_main(train_runner.main, "--action", "train", *flags, *folders)
        assert not ok or outcome.code == 0, outcome.err
        return outcome

    return call


def test_a_changed_experiment_is_a_run_of_its_own_that_tells_what_it_is(train, tmp_path):
    train(*ONE_EPOCH, "--set", "pyramid_width=16", "learning_rate=1e-4")
    run = Run("demo", 0, "pyramid_width-16_learning_rate-0.0001_debug", tmp_path)
    settings = read_stored_training(run.experiment_path).settings
    changes: dict[str, Any] = {"pyramid_width": 16, "learning_rate": 1e-4, "n_epochs": 1}
    assert settings == replace(EXPERIMENTS["demo"], batch_size=2, **changes)
    assert [path.name for path in tmp_path.iterdir()] == [run.name]


def test_any_encoder_of_timm_is_trained_without_a_line_of_code(train, tmp_path):
    flags = ("--model", "timm/resnet10t", "--num-workers", "0", "--debug", "--num-epochs", "1")
    changes = ("img_size=224", "pretrained=false", "pyramid_levels=3,4,5", "batch_size=4",
               "pyramid_width=16", "head_depth=0", "scheduler=one_cycle")  # fmt: skip
    train(*flags, "--run", "small", "--set", *changes)
    run = Run("timm/resnet10t", 0, "small_debug", tmp_path)
    assert read_stored_training(run.experiment_path).settings.img_size == 224
    assert run.checkpoint_path(0).is_file()


def test_named_weights_are_chosen_loaded_and_told(train, tmp_path):
    encoder = eva_x_tiny_patch16_224(img_size=192)
    torch.save({"module": encoder.state_dict()}, tmp_path / "file.pt")
    flags = ("--model", "timm/eva_x_tiny_patch16_224", "--num-workers", "0", "--debug",
             "--num-epochs", "1", "--encoder-weights", tmp_path / "file.pt")  # fmt: skip
    changes = ("pretrained=eva_x_tiny", "img_size=192", "normalisation=encoder", "batch_size=2",
               "pyramid_levels=3,4,5", "pyramid_width=16", "head_depth=0")  # fmt: skip
    train(*flags, "--run", "small", "--set", *changes)
    run = Run("timm/eva_x_tiny_patch16_224", 0, "small_debug", tmp_path)
    said = json.loads(run.experiment_path.read_text())
    assert said["settings"]["pretrained"] == "eva_x_tiny"
    assert said["pretraining"]["has_seen_rsna_images"] is True
    assert said["pretraining"]["began_with"].endswith("licence MIT; has seen RSNA images")
    assert "n_epochs 1, has seen RSNA images" in summarise_experiment(said)
    card = write_shared_weights(run, 0, tmp_path / "s.safetensors", best=None, licence=None)
    assert card.pretraining == said["pretraining"]["began_with"]


def test_folds_are_trained_in_turn(train, tmp_path):
    outcome = train(*ONE_EPOCH, "--folds", "2", "0")
    runs = [Run("demo", fold, "debug", tmp_path) for fold in (2, 0)]
    assert [line for line in outcome.out.splitlines() if line in map(str, (r.dir for r in runs))]
    assert all(run.checkpoint_path(0).is_file() for run in runs)
    assert [read_stored_training(run.experiment_path).fold for run in runs] == [2, 0]


def test_a_fold_that_is_named_twice_is_trained_once(train):
    outcome = train(*ONE_EPOCH, "--folds", "3", "3")
    assert outcome.out.count("all 1 epochs are done") == 1


def test_a_signal_as_a_fold_ends_stops_the_command_before_the_next(train, tmp_path, monkeypatch):
    write_state = actions.TrainingFiles.write_state

    def write_and_stop(files, learner, progress, history):
        write_state(files, learner, progress, history)
        if progress.epoch == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(actions.TrainingFiles, "write_state", write_and_stop)
    outcome = train(*ONE_EPOCH, "--folds", "2", "0", ok=False)
    assert outcome.code == 128 + signal.SIGTERM
    assert outcome.errors()[-1] == "stopped by SIGTERM before fold 0; --resume goes on there"
    done, left = (Run("demo", fold, "debug", tmp_path) for fold in (2, 0))
    assert json.loads(done.experiment_path.read_text())["ended_by"] == "all epochs"
    assert not left.dir.exists()


def test_a_fold_that_is_there_already_stops_the_command_before_the_first(train, tmp_path):
    train(*ONE_EPOCH, "--fold", "1")
    outcome = train(*ONE_EPOCH, "--folds", "0", "1", ok=False)
    assert outcome.code == 2
    assert "demo_debug_fold_1: holds epoch 0 already; --resume goes on with it" in outcome.err
    assert not Run("demo", 0, "debug", tmp_path).dir.exists()


def test_the_hours_of_all_folds_together_begin_before_images_are_looked_for(train, monkeypatch):
    clock, deadlines = [0.0], []
    load = actions.load_labelled_images

    def load_for_an_hour(*arguments, **options):
        clock[0] += 3600
        return load(*arguments, **options)

    monkeypatch.setattr(actions, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(actions, "load_labelled_images", load_for_an_hour)
    monkeypatch.setattr(
        actions, "_run_training", lambda plan: deadlines.append(plan.options.stop.deadline)
    )
    train(*ONE_EPOCH, "--folds", "0", "1", "--max-hours", "2.5")
    assert deadlines == [2.5 * 3600] * 2


def test_a_training_goes_on_with_what_it_began_with(train, tmp_path, monkeypatch):
    train(*ONE_EPOCH, "--run", "x", "--seed", "7", "--set", "pyramid_width=16")
    monkeypatch.setitem(EXPERIMENTS, "demo", replace(EXPERIMENTS["demo"], head_depth=5))
    outcome = train("--model", "demo", "--debug", "--run", "x", "--resume", "--num-workers", "0")
    assert "all 1 epochs are done" in outcome.out
    stored = json.loads(Run("demo", 0, "x_debug", tmp_path).experiment_path.read_text())
    assert (stored["seed"], stored["settings"]["head_depth"]) == (7, 2)
    assert stored["settings"]["pyramid_width"] == 16


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the program catches it."""


@pytest.fixture
def train_killed(train):
    """Return a function that begins a training, and kills it before its first step."""

    def call(*flags):
        def kill(training):
            training.files.close()
            raise Killed

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(actions.Training, "run", kill)
            train(*flags)

    return call


def test_a_training_killed_before_its_first_step_goes_on_as_it_began(
    train, train_killed, trained, tmp_path
):
    weights = trained.checkpoint_path(1)
    flags = ("--seed", "7", "--init-weights", weights, "--set", "hflip=false")
    train_killed(*ONE_EPOCH, "--run", "x", *flags)
    outcome = train("--model", "demo", "--run", "x", "--debug", "--resume", "--num-workers", "0")
    assert "epochs 0 to 0\n" in outcome.out
    train(*ONE_EPOCH, "--run", "y", *flags)
    x, y = (Run("demo", 0, f"{tag}_debug", tmp_path) for tag in "xy")
    assert_same_weights(x, y, 0)
    stored = read_stored_training(x.experiment_path)
    assert stored == read_stored_training(y.experiment_path)


def test_a_training_from_a_later_epoch_that_is_killed_at_once_goes_on_from_there(
    train, train_killed, trained, tmp_path
):
    flags = ("--from-epoch", "1", "--weights_dir", trained.output_dir, "--seed", "7")
    train_killed("--model", "demo", "--num-workers", "0", *flags)
    outcome = train("--model", "demo", "--resume", "--num-workers", "0")
    assert "epochs 1 to 1\n" in outcome.out
    assert Run("demo", 0, "", tmp_path).epochs_with_checkpoint() == [1]


def test_a_later_epoch_is_trained_with_the_seed_that_the_run_began_with(train, tmp_path):
    train(*ONE_EPOCH, "--run", "x", "--seed", "7")
    flags = ("--model", "demo", "--run", "x", "--debug", "--num-workers", "0", "--from-epoch", "1")
    train(*flags, "--num-epochs", "2")
    stored = read_stored_training(Run("demo", 0, "x_debug", tmp_path).experiment_path)
    assert (stored.seed, stored.settings.batch_size) == (7, 2)


@pytest.mark.parametrize("changes", [("batch_size=1",), ("batch_size=10", "accumulate=2")])
def test_a_batch_of_one_image_is_refused_in_a_line_where_batch_norm_needs_more(train, changes):
    flags = ("--model", "timm/skresnet18", "--num-workers", "0", "--debug", "--run", "x")
    changes += ("img_size=192", "pretrained=false", "pyramid_width=16", "head_depth=0")
    outcome = train(*flags, "--set", *changes, ok=False)
    assert outcome.code == 2
    (error,) = outcome.errors()[-1:]
    assert error.startswith("error: the encoder's batch norm cannot be trained on a batch of one ")
    assert "--batch-size" in error
    assert "--set batch_norm=frozen" in error


def test_a_count_that_is_out_of_range_is_told_with_its_flag(train):
    for flag in ("--num-epochs", "--batch-size"):
        outcome = train("--model", "demo", flag, "200000", ok=False)
        assert outcome.code == 2
        assert f"argument {flag}: 200000 is not between 1 and 100000" in outcome.err


@pytest.fixture
def encoder_weights(tmp_path):
    """Return a file with weights of the demo's encoder."""
    torch.manual_seed(3)
    path = tmp_path / "encoder.pth"
    name = EXPERIMENTS["demo"].encoder.removeprefix("timm/")
    torch.save(timm.create_model(name).state_dict(), path)
    return path


def test_a_training_is_repeated_with_the_same_encoder_weights_alone(
    train, call_main, phantoms, encoder_weights, tmp_path
):
    train(*ONE_EPOCH, "--run", "x", "--encoder-weights", encoder_weights)
    run = Run("demo", 0, "x_debug", tmp_path)
    stored = read_stored_training(run.experiment_path)
    assert stored.encoder_weights == WeightsFile.at(encoder_weights)
    repeat = ("--from-experiment", run.experiment_path, "--debug", "--num-workers", "0")
    train(*repeat, "--run", "y")
    assert_same_weights(run, Run("demo", 0, "y_debug", tmp_path), 0)

    moved = encoder_weights.rename(tmp_path / "moved.pth")
    outcome = train(*repeat, "--run", "gone", ok=False)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"{encoder_weights}: no such file of weights" in outcome.err
    train(*repeat, "--run", "moved", "--encoder-weights", moved)
    torch.save({name: 2 * value for name, value in torch.load(moved).items()}, moved)
    outcome = train(*repeat, "--run", "other", "--encoder-weights", moved, ok=False)
    assert outcome.code == 2
    assert "their SHA-256 is" in outcome.errors()[-1]
    # A training that goes on needs no such file.
    train(*ONE_EPOCH, "--run", "x", "--resume", "--encoder-weights", tmp_path / "nowhere.pth")


def test_an_experiment_file_with_the_path_of_encoder_weights_alone_is_read(trained, tmp_path):
    path = tmp_path / "experiment.json"
    said = json.loads(trained.experiment_path.read_text())
    path.write_text(json.dumps(said | {"encoder_weights": "/a/b.pth"}))
    assert read_stored_training(path).encoder_weights == WeightsFile(path="/a/b.pth", sha256=None)


def test_a_training_that_began_at_a_later_epoch_is_not_repeated(train, trained, tmp_path):
    path = tmp_path / "experiment.json"
    said = json.loads(trained.experiment_path.read_text())
    path.write_text(json.dumps(said | {"weights_path": "/a/000.safetensors"}))
    outcome = train("--from-experiment", path, ok=False)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--from-epoch began with /a/000.safetensors; only one that began at" in outcome.err


def assert_same_weights(first, second, epoch):
    weights = [load_checkpoint(run.checkpoint_path(epoch)).model for run in (first, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_training_does_not_go_on_with_other_settings(train):
    train(*ONE_EPOCH, "--run", "x")
    for flags, words in (
        (("--set", "pyramid_width=16"), "began with pyramid_width 48, now it is 16"),
        (("--seed", "8"), "began with seed 1234, now it is 8"),
    ):
        outcome = train(*ONE_EPOCH, "--run", "x", "--resume", *flags, ok=False)
        assert outcome.code == 2
        assert words in outcome.err
