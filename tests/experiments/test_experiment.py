"""An experiment's settings are checked wherever the record is made."""

import math
from dataclasses import asdict, fields, replace

import pytest

from src.experiments.experiment import Experiment, with_defaults
from src.experiments.table import EXPERIMENTS, get_experiment
from src.system.errors import InputError

DEMO = EXPERIMENTS["demo"]
# Of each field, values that cannot be used and words that say what can.
WRONG: dict[str, tuple[list, list[str]]] = {
    "encoder": ([None, 18, "resnet51", "timm", ""], ["text", "resnet50", "timm/<model>"]),
    "img_size": ([0, 7, -5, 160, 200, 4128, 10**9, True, 512.0, "512"], ["32", "192", "4096"]),
    "source_crop": ([0, -1, 768.0, False], ["from 1", "None"]),
    "batch_size": ([0, -2, True, 4.0, None], ["from 1"]),
    "accumulate": ([0, True], ["from 1"]),
    "augmentation_level": ([999, 0, True, "10", []], ["10", "20", "21"]),
    "box_points": (["thirds ", 3, None], ["thirds", "corners"]),
    "hflip": ([1, "yes", None], ["True or False"]),
    "clip_boxes": ([0], ["True or False"]),
    "grey": (["full", None], ["viewer", "range"]),
    "reduction": (["mean", None], ["subsample", "area", "auto"]),
    "pretrained": ([1, "False"], ["True or False"]),
    "batch_norm": (["freeze", True], ["auto", "frozen", "train"]),
    "dropout_class": ([7, 1, -0.1, math.nan, "0.5", True], ["from 0 to 1"]),
    "dropout_global": ([1.0], ["from 0 to 1"]),
    "pyramid_levels": (
        [(), (3, 5), (5, 4), (6, 7), (1, 2, 3, 4, 5), (2, 3, 4), (4, 5, 6, 7, 8), [3, 4, 5], 5],
        ["consecutive"],
    ),
    "pyramid_width": ([0, 256.0], ["from 1"]),
    "head_depth": ([-1, None], ["from 0"]),
    "optimizer": (["adamw", "Adam", None], ["adam", "sgd"]),
    "learning_rate": ([0, -1e-5, 10, math.nan, math.inf, "1e-5", True], ["above 0"]),
    "scheduler": (["cosine"], ["plateau", "milestones", "one_cycle"]),
    "clip_norm": ([0, -1.0, math.nan, math.inf, False], ["above 0"]),
    "n_epochs": ([0, 1.5, True], ["from 1"]),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (values, _) in WRONG.items() for value in values]
)
def test_a_wrong_setting_is_refused_in_one_line_that_says_what_is_right(name, value):
    for make in (
        lambda: replace(DEMO, **{name: value}),
        lambda: Experiment(**(asdict(DEMO) | {name: value})),
        *([lambda: get_experiment("demo", **{name: value})] if value is not None else []),
    ):
        with pytest.raises(InputError) as caught:
            make()
        message = str(caught.value)
        assert name in message or (name == "encoder" and "unknown encoder" in message)
        assert repr(value) in message
        assert any(word in message for word in WRONG[name][1])
        assert "\n" not in message


def test_no_setting_goes_unchecked():
    assert set(WRONG) == {field.name for field in fields(Experiment)}


@pytest.mark.parametrize(
    "change",
    [
        {"img_size": 192},
        {"img_size": 4096},
        {"source_crop": None},
        {"source_crop": 1},
        {"learning_rate": 1},
        {"dropout_class": 0},
        {"head_depth": 0},
        {"pyramid_levels": (5,)},
        {"pyramid_levels": (2, 3, 4, 5, 6, 7)},
        {"encoder": "timm/whatever_timm_may_call_it"},
        {"reduction": "area", "clip_boxes": True},
    ],
)
def test_the_limits_of_a_setting_belong_to_it(change):
    changed = replace(DEMO, **change)
    assert {name: getattr(changed, name) for name in change} == change


def test_a_very_long_value_is_cut_off_in_the_message():
    with pytest.raises(InputError) as caught:
        replace(DEMO, optimizer="adam" * 1000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


def test_settings_that_came_later_have_their_defaults():
    stored = asdict(DEMO)
    del stored["clip_boxes"]
    assert with_defaults(stored) == asdict(DEMO)


def test_settings_that_came_later_are_what_runs_did_before():
    """Their defaults came with them: older runs were trained in the former way."""
    stored = asdict(DEMO)
    del stored["grey"], stored["reduction"]
    assert with_defaults(stored) == asdict(DEMO) | {"grey": "range", "reduction": "subsample"}
    assert with_defaults(stored | {"reduction": "area"})["reduction"] == "area"
