"""experiment.json: a training comes back as it was, also from a file of an older version."""

import json
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from src.datasets.sample_options import SampleOptions
from src.experiments.experiment_file import (
    StoredTraining,
    WeightsFile,
    note_end,
    read_stored_training,
    sample_options,
    write_stored_training,
)
from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS
from src.system.errors import InputError

STORED = StoredTraining(
    model="demo",
    fold=2,
    settings=replace(
        EXPERIMENTS["demo"], clip_boxes=True, reduction="area", fit="pad", normalisation=(0.5, 0.25)
    ),
    seed=7,
    precision="bf16",
    data_fingerprint="0" * 64,
)


@pytest.fixture
def stored(tmp_path):
    """Return the path of a training's experiment.json."""
    run = Run("demo", 2, "", tmp_path)
    write_stored_training(run, STORED, {"device": "cpu"})
    return run.experiment_path


def change(path, *, drop=(), drop_settings=(), settings=None, **fields):
    content = json.loads(path.read_text())
    content["settings"] |= settings or {}
    content |= fields
    for name in drop:
        del content[name]
    for name in drop_settings:
        del content["settings"][name]
    path.write_text(json.dumps(content))


def test_a_training_comes_back_as_it_was_stored(stored):
    assert read_stored_training(stored) == STORED


def test_a_training_says_when_it_began(stored):
    date = datetime.fromisoformat(json.loads(stored.read_text())["date"])
    assert timedelta(0) <= datetime.now(UTC) - date < timedelta(days=1)


def test_a_training_that_began_with_weights_of_another_comes_back(tmp_path):
    run = Run("demo", 2, "", tmp_path)
    stored = replace(STORED, init_weights=WeightsFile(path="/a/b.safetensors", sha256="1" * 64))
    write_stored_training(run, stored, {})
    assert read_stored_training(run.experiment_path) == stored


def test_a_training_of_a_version_without_init_weights_began_without(stored):
    change(stored, drop=("init_weights",))
    assert read_stored_training(stored) == STORED


def test_a_setting_that_an_older_version_did_not_know_has_its_default(stored):
    change(stored, drop_settings=("clip_boxes", "fit", "grey", "reduction", "source_crop"))
    plain = replace(
        STORED.settings, clip_boxes=False, fit="squeeze", grey="range", reduction="subsample"
    )
    assert read_stored_training(stored) == replace(STORED, settings=plain)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"no_such_setting": 1}}, "'no_such_setting'"),
        ({"drop_settings": ("encoder",)}, "field encoder is missing"),
        ({"drop": ("seed",)}, "field seed is missing"),
        ({"drop": ("settings",)}, "field settings is missing"),
        ({"init_weights": 5}, "init_weights cannot be 5"),
        ({"init_weights": {"path": "a"}}, "sha256 is missing"),
        ({"seed": -1}, "seed cannot be -1; it must be a whole number from 0"),
        ({"seed": True}, "seed cannot be True"),
        ({"fold": 20}, "fold cannot be 20; it must be a fold from 0 to 19"),
        ({"precision": "fp8"}, "precision cannot be 'fp8'; it must be 'fp32' or 'bf16' or 'fp16'"),
        ({"model": None}, "model cannot be None"),
        ({"data_fingerprint": 5}, "data_fingerprint cannot be 5"),
        ({"settings": {"optimizer": "lamb"}}, "optimizer cannot be 'lamb'"),
        ({"settings": {"img_size": 7}}, "img_size cannot be 7"),
        ({"settings": {"batch_size": True}}, "batch_size cannot be True"),
        ({"settings": {"pyramid_levels": [3, 5]}}, "pyramid_levels cannot be (3, 5)"),
        ({"settings": {"pyramid_levels": 3}}, "pyramid_levels cannot be 3"),
        ({"settings": {"learning_rate": float("nan")}}, "learning_rate cannot be nan"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line(stored, changes, words):
    change(stored, **changes)
    with pytest.raises(InputError) as caught:
        read_stored_training(stored)
    message = str(caught.value)
    assert message.startswith(f"{stored}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("content", ["", "[]", "5", '{"settings": []}', '"text"', "[" * 100_000])
def test_a_file_that_is_something_else_is_refused(tmp_path, content):
    path = tmp_path / "experiment.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"experiment\.json: "):
        read_stored_training(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"experiment\.json: no such file"):
        read_stored_training(tmp_path / "experiment.json")


def test_samples_are_made_as_the_experiment_says():
    options = sample_options(STORED.settings, seed=5)
    shared = {field.name for field in fields(SampleOptions)} - {"seed"}
    expected = {name: value for name, value in asdict(STORED.settings).items() if name in shared}
    assert asdict(options) == expected | {"shown": asdict(STORED.settings.shown), "seed": 5}


def test_the_end_of_a_training_is_noted_beside_what_it_is(stored):
    run = Run("demo", 2, "", stored.parents[1])
    before = json.loads(stored.read_text())
    note_end(run, "--patience", before["settings"]["n_epochs"] + 3)
    after = json.loads(stored.read_text())
    assert after.pop("ended_by") == "--patience"
    assert after["settings"].pop("n_epochs") == before["settings"].pop("n_epochs") + 3
    assert after == before


def test_the_end_of_a_training_without_a_description_makes_none(tmp_path):
    run = Run("demo", 2, "", tmp_path)
    note_end(run, "all epochs", 3)
    assert not run.experiment_path.exists()
