import csv
import json
import shutil
import signal
from dataclasses import asdict, dataclass, field, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

import src.training.loop
from src.datasets.loaders import load_labelled_images
from src.experiments.checkpoints import CheckpointError, load_checkpoint
from src.experiments.experiment_file import read_stored_training
from src.experiments.history import COSTS, NEWER_COLUMNS, write_history
from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS
from src.prediction.predictions import ARRAYS, load_predictions
from src.retinanet.acceleration import Acceleration
from src.structures import LOSS_NAMES
from src.system.distributed import Processes
from src.system.errors import InputError, Interrupted
from src.system.processes import StopRequest
from src.training.loop import Training
from src.training.options import TrainingOptions
from src.training.run_files import TrainingFiles
from tests.histories import repeatable_of
from tests.image_folders import image_folder
from tests.made_checkpoints import as_version_1, copy_checkpoint, rewrite_facts

ON_CPU = Acceleration(device=torch.device("cpu"))
# The demo's network made smaller still; it draws dropout and augments as the paper's do.
SMALL = replace(
    EXPERIMENTS["demo"],
    pyramid_width=16,
    head_depth=1,
    dropout_class=0.5,
    dropout_global=0.5,
    augmentation_level=20,
    batch_size=4,
    n_epochs=2,
)


@pytest.fixture(scope="module")
def images(phantoms):
    return load_labelled_images(phantoms, 0)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """Return a run of two epochs that nothing interrupted."""
    run = Run("demo", 0, "", tmp_path_factory.mktemp("whole"))
    started(run, SMALL, images, options()).run()
    return run


def options(**changes):
    return replace(TrainingOptions(acceleration=ON_CPU, seed=7, n_workers=0), **changes)


def started(run, experiment, images, options):
    training = Training(run, experiment, images, options)
    training.start()
    return training


def train_one_of_two(monkeypatch, run, info, images):
    """Interrupt a training at the start of its second epoch."""
    train_epoch = src.training.loop.train_epoch

    def interrupted(learner, batches, progress, **options):
        if progress.epoch == 1:
            raise KeyboardInterrupt
        train_epoch(learner, batches, progress, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(src.training.loop, "train_epoch", interrupted)
        started(run, info, images, options()).run()


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_training_leaves_the_files_of_the_design(whole):
    files = {str(path.relative_to(whole.dir)) for path in whole.dir.rglob("*") if path.is_file()}
    (events,) = [name for name in files if name.startswith("tensorboard/events")]
    assert files - {events} == {
        "experiment.json", "history.csv", "checkpoints/000.safetensors",
        "checkpoints/001.safetensors", "checkpoints/last.safetensors",
        "predictions/000.npz", "predictions/001.npz",
    }  # fmt: skip


def test_experiment_json_says_how_the_run_was_made(whole, images):
    content = json.loads(whole.experiment_path.read_text())
    assert content["model"] == "demo"
    assert content["settings"] == json.loads(json.dumps(asdict(SMALL)))
    assert (content["seed"], content["fold"], content["device"]) == (7, 0, "cpu")
    assert (content["n_train"], content["n_valid"]) == (len(images.train), len(images.valid))
    assert content["versions"]["torch"] == torch.__version__.split("+")[0]
    assert content["images"] == str(images.images_dir)


def test_experiment_json_says_where_the_images_lie_to_any_folder(images, tmp_path, monkeypatch):
    monkeypatch.chdir(images.images_dir.parent)
    here = replace(images, images_dir=Path(images.images_dir.name))
    run = Run("demo", 0, "", tmp_path)
    TrainingFiles(run, SMALL, options()).describe_training(here)
    assert json.loads(run.experiment_path.read_text())["images"] == str(images.images_dir)


def test_history_has_a_row_of_losses_for_each_epoch(whole):
    rows = rows_of(whole.history_path)
    assert list(rows[0]) == ["epoch", "learning_rate"] + [
        f"{part}_{name}" for part in ("train", "valid") for name in LOSS_NAMES
    ] + ["skipped_steps", *NEWER_COLUMNS]
    assert [row["epoch"] for row in rows] == ["0", "1"]
    for row in rows:
        for part in ("train", "valid"):
            loss, *parts = (float(row[f"{part}_{name}"]) for name in LOSS_NAMES)
            assert loss == pytest.approx(parts[0] + parts[1] + 0.1 * parts[2], rel=1e-5)


def test_history_tells_what_each_epoch_cost(whole):
    for row in rows_of(whole.history_path):
        cost = {name: float(row[name]) for name in (*COSTS, "gradient_norm")}
        assert all(value > 0 for value in cost.values())
        assert cost["waiting_share"] < 1
        n_trained = 8  # of 11, in whole batches of 4
        seconds = cost["seconds"] - cost["valid_seconds"]
        assert cost["images_per_second"] == pytest.approx(n_trained / seconds, rel=1e-5)


def test_predictions_hold_every_validation_image_and_its_truth(whole, images):
    predictions = load_predictions(whole.predictions_path(1))
    assert predictions.ids.tolist() == [record.patient_id for record in images.valid]
    assert np.diff(predictions.true_offsets).tolist() == [len(r.boxes_xywh) for r in images.valid]
    xywh = np.concatenate([record.boxes_xywh for record in images.valid]) * 192 / 1024
    np.testing.assert_allclose(predictions.true_boxes_xyxy[:, :2], xywh[:, :2], rtol=1e-5)
    np.testing.assert_allclose(
        predictions.true_boxes_xyxy[:, 2:], xywh[:, :2] + xywh[:, 2:], rtol=1e-5
    )
    assert (predictions.provenance.epoch, predictions.provenance.model) == (1, "demo")


def test_every_epoch_is_saved_weights_only(whole):
    first, second = (load_checkpoint(whole.checkpoint_path(epoch), "demo") for epoch in (0, 1))
    assert (first.facts.epoch, first.facts.training, first.optimizer) == (0, None, {})
    assert any(not torch.equal(first.model[name], second.model[name]) for name in first.model)


def test_the_last_checkpoint_is_that_of_the_last_epoch(whole):
    last = load_checkpoint(whole.last_checkpoint_path, "demo", resume=True)
    second = load_checkpoint(whole.checkpoint_path(1), "demo")
    assert last.facts.epoch == 1
    assert all(torch.equal(last.model[name], second.model[name]) for name in last.model)


def test_tensorboard_holds_the_losses(whole):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(whole.tensorboard_dir)).Reload()
    logged = [(event.step, event.value) for event in events.Scalars("valid_loss")]
    expected = [(int(r["epoch"]), float(r["valid_loss"])) for r in rows_of(whole.history_path)]
    assert [step for step, _ in logged] == [0, 1]
    np.testing.assert_allclose(logged, expected, rtol=1e-5)


def test_tensorboard_shows_a_picture_of_each_epoch(images, tmp_path, read_picture):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, calls = Run("demo", 0, "", tmp_path), []

    def draw(source, predictions):
        calls.append((source, predictions.provenance.epoch))
        return np.full((6, 9, 3), (200, 100, len(calls)), dtype=np.uint8)

    started(run, SMALL, images, options(draw_epoch=draw)).run()
    assert calls == [(images.source, 0), (images.source, 1)]
    events = reader.EventAccumulator(str(run.tensorboard_dir)).Reload().Images("validation")
    assert [event.step for event in events] == [0, 1]
    path = tmp_path / "picture.png"
    path.write_bytes(events[1].encoded_image_string)
    assert (read_picture(path) == np.tile([200, 100, 2], (6, 9, 1))).all()


def at_deadline(run, images, **changes):
    """Train one step, until the time is up; return the error."""
    with pytest.raises(Interrupted) as caught:
        started(run, SMALL, images, options(stop=StopRequest(0), **changes)).run()
    return caught.value


def test_a_training_whose_time_is_up_saves_its_step_and_goes_on_bit_for_bit(
    whole, images, tmp_path
):
    run = Run("demo", 0, "", tmp_path)
    stop = at_deadline(run, images)
    assert str(stop) == (
        "stopped by --max-hours in epoch 0, 1 of 2 batches; --resume goes on from there"
    )
    assert stop.exit_code == 75
    assert ended_by(run) == "--max-hours"
    at_deadline(run, images, resume=True)
    resumed = started(run, SMALL, images, options(resume=True))
    assert resumed.progress.n_batches == 2
    assert ended_by(run) is None
    seconds = resumed.progress.seconds  # of both steps
    assert seconds > 0
    resumed.run()
    assert ended_by(run) == "all epochs"
    assert_same_run(run, whole)
    row = rows_of(run.history_path)[0]
    assert float(row["seconds"]) - float(row["valid_seconds"]) == pytest.approx(seconds, rel=1e-5)


@dataclass(frozen=True)
class OneOfTwo(Processes):
    """Stands for the first of two processes; the other one may have received a signal."""

    calls: list[str] = field(default_factory=list)
    signal_there: signal.Signals | None = None

    def gather(self, value):
        self.calls.append("gather")
        return [value, self.signal_there]


@pytest.mark.parametrize(
    ("signal_there", "cause", "code"), [(None, "--max-hours", 75), (signal.SIGINT, "SIGINT", 130)]
)
def test_processes_agree_on_what_stops_them_and_wait_for_the_saved_state(
    images, tmp_path, monkeypatch, signal_there, cause, code
):
    calls: list[str] = []
    monkeypatch.setattr(TrainingFiles, "write_state", lambda *_: calls.append("save"))
    run = Run("demo", 0, "", tmp_path)
    stop = at_deadline(run, images, processes=OneOfTwo(calls=calls, signal_there=signal_there))
    assert (stop.exit_code, str(stop).split(" in ")[0]) == (code, f"stopped by {cause}")
    assert ended_by(run) == cause
    assert calls == ["save", "gather", "save", "gather"]


def test_a_training_whose_time_is_up_as_it_ends_has_ended(whole, images):
    assert (
        started(whole, SMALL, images, options(resume=True, stop=StopRequest(0))).run().by
        == "all epochs"
    )


def test_time_that_is_up_in_validation_leaves_the_epoch_to_be_validated(
    whole, images, tmp_path, monkeypatch
):
    run = Run("demo", 0, "", tmp_path)
    validate = src.training.loop.validate

    def validate_late(*arguments, wants_to_stop, **others):
        return validate(*arguments, wants_to_stop=lambda: True, **others)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="2 of 2 batches"):
        patch.setattr(src.training.loop, "validate", validate_late)
        started(run, SMALL, images, options()).run()
    started(run, SMALL, images, options(resume=True)).run()
    assert_same_run(run, whole)


def ended_by(run):
    return json.loads(run.experiment_path.read_text())["ended_by"]


def with_validation_losses(monkeypatch, *losses):
    """Let the regression losses of validation be these, epoch by epoch."""
    validate, left = src.training.loop.validate, list(losses)

    def validate_as_told(*arguments, **others):
        validated, predictions = validate(*arguments, **others)
        return validated | {"regression": left.pop(0)}, predictions

    monkeypatch.setattr(src.training.loop, "validate", validate_as_told)


def test_patience_ends_a_training_whose_loss_falls_no_more(images, tmp_path, monkeypatch):
    run = Run("demo", 0, "", tmp_path)
    info = replace(SMALL, n_epochs=9)
    with_validation_losses(monkeypatch, 0.5, 0.4, 0.45, 0.4, 0.3)
    ending = started(run, info, images, options(patience=2)).run()
    assert ending.by == ended_by(run) == "--patience"
    assert ending.words.startswith("ended by --patience 2 after epoch 3: ")
    assert "was least in epoch 1; --resume with a larger --patience" in ending.words

    again = started(run, info, images, options(resume=True, patience=2))
    assert again.describe().endswith("no epoch is left")
    assert again.run() == ending
    more = started(run, info, images, options(resume=True, patience=3))
    assert more.describe().endswith("epochs 4 to 8")
    with pytest.raises(IndexError):  # after .3 it goes on, and no loss is left
        more.run()
    assert [row["epoch"] for row in rows_of(run.history_path)] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("n_workers", [0, 1])
def test_resume_gives_the_uninterrupted_run_bit_for_bit(
    whole, images, tmp_path, monkeypatch, n_workers
):
    run = Run("demo", 0, "", tmp_path)
    train_one_of_two(monkeypatch, run, SMALL, images)
    assert run.epochs_with_checkpoint() == [0]
    torch.rand(3)  # the random state of the process is another one by now

    resumed = started(run, SMALL, images, options(resume=True, n_workers=n_workers))
    assert resumed.progress.epoch == 1
    resumed.run()
    assert_same_run(run, whole)


def assert_same_run(run, expected):
    for epoch in (0, 1):
        ours, its = (load_checkpoint(r.find_checkpoint(epoch), "demo") for r in (run, expected))
        assert all(torch.equal(its.model[name], ours.model[name]) for name in its.model)
        predictions = [load_predictions(r.predictions_path(epoch)) for r in (run, expected)]
        for name in ARRAYS:
            np.testing.assert_array_equal(*(getattr(p, name) for p in predictions))
    assert repeatable_of(run) == repeatable_of(expected)


def test_a_run_of_version_1_goes_on_bit_for_bit_in_todays_form(
    whole, images, tmp_path, monkeypatch
):
    run = Run("demo", 0, "", tmp_path)
    train_one_of_two(monkeypatch, run, SMALL, images)
    for path in (run.checkpoint_path(0), run.last_checkpoint_path):
        torch.save(as_version_1(load_checkpoint(path)), path.with_suffix(".pt"))
        path.unlink()
    resumed = started(run, SMALL, images, options(resume=True))
    assert resumed.progress.epoch == 1
    resumed.run()
    assert_same_run(run, whole)
    assert {path.name for path in run.checkpoints_dir.iterdir()} == {
        "000.pt", "001.safetensors", "last.pt", "last.safetensors",
    }  # fmt: skip
    again = started(run, SMALL, images, options(resume=True))
    assert again.progress.epoch == 2, "today's state counts, not the old one"


def test_clip_boxes_and_reduction_shape_the_samples_and_are_stored(images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    settings = replace(SMALL, clip_boxes=True, reduction="area")
    training = started(run, settings, images, options())
    for loader in (training.train_loader, training.valid_loader):
        samples = loader.dataset.dataset.options
        assert (samples.clip_boxes, samples.reduction) == (True, "area")
    stored = read_stored_training(run.experiment_path)
    assert stored.settings == settings


def test_every_epoch_draws_its_own_samples(images, tmp_path, monkeypatch):
    keys = []

    def record(learner, loader, progress, **options):
        keys.append(list(loader.sampler))

    monkeypatch.setattr(src.training.loop, "train_epoch", record)
    started(Run("demo", 0, "", tmp_path), SMALL, images, options()).run()
    assert [{epoch for epoch, _ in of_epoch} for of_epoch in keys] == [{0}, {1}]
    orders = [[index for _, index in of_epoch] for of_epoch in keys]
    assert orders[0] != orders[1]


def test_a_training_that_is_only_built_leaves_the_folder_alone(whole, images, tmp_path, listing):
    run, before = Run("demo", 0, "", tmp_path), listing(whole.dir)
    assert (
        Training(run, SMALL, images, options()).describe().endswith("for validation, epochs 0 to 1")
    )
    Training(whole, SMALL, images, options())
    assert not run.dir.exists()
    assert listing(whole.dir) == before


def test_another_seed_gives_other_weights(images, tmp_path):
    first = Training(Run("demo", 0, "", tmp_path), SMALL, images, options(seed=8))
    second = Training(Run("demo", 0, "same", tmp_path), SMALL, images, options(seed=8))
    third = Training(Run("demo", 0, "other", tmp_path), SMALL, images, options(seed=9))
    name = "pyramid.lateral.0.weight"
    weights = [training.model.state_dict()[name] for training in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_resume_of_a_finished_run_changes_no_weights(whole, images, listing):
    before = listing(whole.dir / "checkpoints", whole.dir / "predictions")
    resumed = started(whole, SMALL, images, options(resume=True))
    assert resumed.progress.epoch == 2
    assert resumed.describe().endswith("no epoch is left")
    assert resumed.run().words == "all 2 epochs are done"
    assert listing(whole.dir / "checkpoints", whole.dir / "predictions") == before


def test_a_training_does_not_write_over_an_older_one(whole, images, listing):
    before = listing(whole.dir)
    with pytest.raises(InputError, match="holds epoch 0 already; --resume goes on with it"):
        started(whole, SMALL, images, options())
    with pytest.raises(InputError, match="holds epoch 1 already"):
        started(whole, SMALL, images, options(from_epoch=1))
    assert listing(whole.dir) == before


@pytest.mark.parametrize(
    ("settings", "changes", "match"),
    [
        ({"learning_rate": 1e-3}, {}, "began with learning_rate 0.002, now it is 0.001"),
        ({"batch_size": 2}, {}, "began with batch_size 4, now it is 2"),
        ({"n_epochs": 3}, {}, "began with n_epochs 2, now it is 3"),
        ({}, {"seed": 8}, "began with seed 7, now it is 8"),
    ],
)
def test_resume_with_other_settings_is_refused(whole, images, listing, settings, changes, match):
    before = listing(whole.dir)
    with pytest.raises(CheckpointError, match=match):
        started(whole, replace(SMALL, **settings), images, options(resume=True, **changes))
    assert listing(whole.dir) == before


def with_another_label(images):
    first, *others = images.train
    return replace(images, train=[replace(first, category=1 - first.category // 2), *others])


def without_an_image(images):
    return replace(images, train=images.train[1:])


def with_other_folds(images):
    train, valid = ([b[0], *a[1:]] for a, b in permutations((images.train, images.valid)))
    return replace(images, train=train, valid=valid)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without_an_image, "images or folds are not those of the training in "),
        (with_other_folds, "images or folds are not those of the training in "),
    ],
)
def test_resume_with_other_data_is_refused(whole, images, listing, change, match):
    before = listing(whole.dir)
    with pytest.raises(InputError, match=match) as caught:
        started(whole, SMALL, change(images), options(resume=True))
    assert str(caught.value).startswith(str(images.images_dir))
    assert len(str(caught.value).splitlines()) == 1
    assert listing(whole.dir) == before


def test_a_training_goes_on_with_labels_that_were_mended(whole, images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    copy_checkpoint(whole.last_checkpoint_path, run.last_checkpoint_path)
    run.experiment_path.write_text(whole.experiment_path.read_text())
    with pytest.warns(UserWarning, match="labels or files are not those that the training in"):
        started(run, SMALL, with_another_label(images), options(resume=True))


def test_a_training_of_an_older_version_goes_on_with_whatever_folds(whole, images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    copy_checkpoint(whole.last_checkpoint_path, run.last_checkpoint_path)
    said = json.loads(whole.experiment_path.read_text())
    del said["split_fingerprint"]
    run.experiment_path.write_text(json.dumps(said))
    others = with_other_folds(images)
    assert started(run, SMALL, others, options(resume=True)).progress.epoch == 2
    with pytest.raises(InputError, match="labels or images are not"):
        started(run, SMALL, without_an_image(images), options(resume=True))


def test_the_folds_of_a_repeated_training_are_compared(whole, images, tmp_path):
    stored = read_stored_training(whole.experiment_path)
    same = options(
        data_fingerprint=stored.data_fingerprint, split_fingerprint=stored.split_fingerprint
    )
    started(Run("demo", 0, "", tmp_path), SMALL, images, same)
    run = Run("demo", 0, "other", tmp_path)
    with pytest.raises(
        InputError, match="images or folds are not those of the experiment that is to be"
    ):
        started(run, SMALL, with_other_folds(images), same)
    assert not run.experiment_path.exists()


def copy_with_settings(whole, folder, change):
    """Copy the state of a run, its stored settings changed."""
    run = replace(whole, output_dir=folder)
    run.checkpoints_dir.mkdir(parents=True)
    shutil.copy(whole.last_checkpoint_path, run.last_checkpoint_path)
    rewrite_facts(
        run.last_checkpoint_path, lambda facts: facts | {"settings": change(facts["settings"])}
    )
    return run


def test_a_training_of_an_older_version_goes_on_with_what_it_did_before_newer_settings(
    whole, images, tmp_path
):
    newer = ("clip_boxes", "grey", "reduction")
    formerly = replace(SMALL, grey="range", reduction="subsample")

    def drop(settings):
        return {name: value for name, value in settings.items() if name not in newer}

    run = copy_with_settings(whole, tmp_path, drop)
    assert started(run, formerly, images, options(resume=True)).progress.epoch == 2
    with pytest.raises(CheckpointError, match="began with reduction subsample, now it is area"):
        started(run, replace(formerly, reduction="area"), images, options(resume=True))
    with pytest.raises(CheckpointError, match="began with clip_boxes False, now it is True"):
        started(run, replace(formerly, clip_boxes=True), images, options(resume=True))


def test_a_training_of_settings_that_are_unknown_here_does_not_go_on(whole, images, tmp_path):
    run = copy_with_settings(whole, tmp_path, lambda settings: settings | {"mixup": 0.2})
    with pytest.raises(CheckpointError, match="unknown field 'mixup'"):
        started(run, SMALL, images, options(resume=True))


def test_a_plateau_training_can_be_made_longer(images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    info = replace(SMALL, scheduler="plateau", n_epochs=1)
    started(run, info, images, options()).run()
    longer = started(run, replace(info, n_epochs=2), images, options(resume=True))
    assert longer.progress.epoch == 1
    longer.run()
    assert [row["epoch"] for row in rows_of(run.history_path)] == ["0", "1"]
    assert json.loads(run.experiment_path.read_text())["settings"]["n_epochs"] == 2
    shorter = started(run, info, images, options(resume=True))
    assert shorter.ending == ("all epochs", "all 2 epochs are done")
    assert json.loads(run.experiment_path.read_text())["settings"]["n_epochs"] == 2


def test_resume_of_a_broken_checkpoint_is_refused(whole, images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    run.last_checkpoint_path.parent.mkdir(parents=True)
    run.last_checkpoint_path.write_bytes(whole.last_checkpoint_path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        started(run, SMALL, images, options(resume=True))


def from_epoch_1(run, info, images):
    weights_path = run.checkpoint_path(0)
    return started(run, info, images, options(from_epoch=1, weights_path=weights_path))


def test_from_epoch_starts_from_the_weights_of_the_epoch_before(images, tmp_path, monkeypatch):
    run = Run("demo", 0, "", tmp_path)
    train_one_of_two(monkeypatch, run, SMALL, images)
    training = from_epoch_1(run, SMALL, images)
    saved = load_checkpoint(run.checkpoint_path(0), "demo").model
    assert training.progress.epoch == 1
    assert all(torch.equal(saved[name], t) for name, t in training.model.state_dict().items())


def test_from_epoch_killed_at_once_goes_on_as_it_began(images, tmp_path, monkeypatch):
    run = Run("demo", 0, "", tmp_path)
    train_one_of_two(monkeypatch, run, SMALL, images)
    began = from_epoch_1(run, SMALL, images).learner.optimization
    resumed = started(run, SMALL, images, options(resume=True))
    assert resumed.progress.epoch == 1
    assert resumed.learner.optimization.state() == began.state()
    assert resumed.learner.optimization.tensors() == {}  # without the averages of epoch 0


def test_from_epoch_keeps_the_history_of_the_epochs_before(images, tmp_path, monkeypatch):
    run = Run("demo", 0, "", tmp_path)
    train_one_of_two(monkeypatch, run, SMALL, images)
    before = rows_of(run.history_path)
    from_epoch_1(run, SMALL, images).run()
    after = rows_of(run.history_path)
    assert [row["epoch"] for row in after] == ["0", "1"]
    assert after[0] == before[0]


def test_from_epoch_keeps_a_history_of_an_older_version(images, tmp_path, monkeypatch):
    run = Run("demo", 0, "", tmp_path)
    train_one_of_two(monkeypatch, run, SMALL, images)
    (before,) = rows_of(run.history_path)
    older = {name: float(v) for name, v in before.items() if name not in NEWER_COLUMNS}
    write_history(run.history_path, [older])
    from_epoch_1(run, SMALL, images).run()
    first, second = rows_of(run.history_path)
    assert first == before | dict.fromkeys(NEWER_COLUMNS, "")
    assert all(second.values())


@pytest.mark.parametrize("scheduler", ["one_cycle", "milestones"])
def test_from_epoch_takes_the_learning_rate_of_its_epoch(whole, images, tmp_path, scheduler):
    # Milestones come after epoch 8; of a one-cycle rate 12 of 20 epochs lie behind its peak.
    info = replace(SMALL, scheduler=scheduler, n_epochs=20)
    run = Run("demo", 0, "", tmp_path)
    late = started(run, info, images, options(from_epoch=12, weights_path=whole.checkpoint_path(1)))
    rate = late.learner.optimization.optimizer.param_groups[0]["lr"]
    assert rate < 0.9 * info.learning_rate
    if scheduler == "milestones":
        assert rate == pytest.approx(info.learning_rate / 10)


def test_from_epoch_behind_the_last_one_is_refused(whole, images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    for epoch in (2, 5):
        with pytest.raises(InputError, match=rf"--from-epoch {epoch}: .* has epochs 0 to 1; "):
            from_whole = options(from_epoch=epoch, weights_path=whole.checkpoint_path(1))
            started(run, SMALL, images, from_whole)
    assert not run.dir.exists()


def test_a_training_killed_before_its_first_step_may_begin_again_in_another_way(images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    started(run, SMALL, images, options()).files.close()
    again = started(run, replace(SMALL, batch_size=2), images, options(seed=8))
    assert again.progress.n_batches == 0
    state = load_checkpoint(run.last_checkpoint_path, "demo", resume=True).facts
    assert (state.settings.batch_size, state.training.seed) == (2, 8)  # type: ignore[union-attr]


def test_a_run_whose_state_alone_is_left_does_not_begin_again(whole, images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    copy_checkpoint(whole.last_checkpoint_path, run.last_checkpoint_path)
    with pytest.raises(InputError, match="--resume goes on with it"):
        started(run, SMALL, images, options())


@pytest.mark.parametrize("from_epoch", [0, 1])
def test_a_run_of_an_older_version_without_a_first_state_begins_again(
    whole, images, tmp_path, from_epoch
):
    run = Run("demo", 0, "", tmp_path)
    load_checkpoint(whole.checkpoint_path(0), "demo").save(run.checkpoint_path(from_epoch))
    weights_path = whole.checkpoint_path(0) if from_epoch else None
    begun = options(resume=True, from_epoch=from_epoch, weights_path=weights_path)
    assert started(run, SMALL, images, begun).progress.epoch == from_epoch
    run.last_checkpoint_path.unlink()
    load_checkpoint(whole.checkpoint_path(1), "demo").save(run.checkpoint_path(from_epoch + 1))
    with pytest.raises(InputError, match=r"last\.safetensors: is missing"):
        started(run, SMALL, images, begun)


def test_a_fold_of_a_batch_and_a_half_is_trained_in_whole_batches(images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    training = Training(run, replace(SMALL, batch_size=8), images, options())
    assert len(training.train_loader) == len(images.train) // 8
    assert len(training.valid_loader.dataset) == len(images.valid)  # type: ignore[arg-type]


def test_a_broken_image_is_one_error_from_a_worker_too(images, phantoms, tmp_path):
    broken = tmp_path / "images"
    broken.mkdir()
    for record in [*images.train, *images.valid]:
        (broken / f"{record.patient_id}.dcm").write_text("no radiograph")
    for n_workers in (0, 1):
        run = Run("demo", 0, f"workers{n_workers}", tmp_path)
        training = started(
            run, SMALL, replace(images, source=image_folder(broken)), options(n_workers=n_workers)
        )
        with pytest.raises(InputError) as caught:
            training.run()
        assert "Traceback" not in str(caught.value)
        assert str(caught.value).startswith(str(broken))


def test_a_training_does_not_begin_again_over_one_that_stopped_in_its_first_epoch(
    images, tmp_path, listing
):
    run = Run("demo", 0, "", tmp_path)
    at_deadline(run, images)
    before = listing(run.dir)
    with pytest.raises(InputError, match="stopped in its first epoch; --resume goes on with it"):
        started(run, SMALL, images, options())
    assert listing(run.dir) == before


def test_resume_before_the_first_epoch_that_is_wanted_is_refused(whole, images, tmp_path):
    run = Run("demo", 0, "", tmp_path)
    copy_checkpoint(whole.last_checkpoint_path, run.last_checkpoint_path, epoch=-1)
    with pytest.raises(InputError, match=r"stands in epoch 0; .* without --from-epoch 1"):
        started(run, SMALL, images, options(resume=True, from_epoch=1))
