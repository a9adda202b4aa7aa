"""An experiment's settings are checked wherever the record is made."""

import math
from dataclasses import asdict, fields, replace

import pytest

from src.experiments.experiment import Experiment, with_defaults
from src.experiments.table import EXPERIMENTS
from src.retinanet.settings import AnchorShapes, CandidateLimits, LossSettings
from src.system.errors import InputError
from src.system.records import show_value

DEMO = EXPERIMENTS["demo"]
# Of each field, values that cannot be used and words that say what can.
WRONG: dict[str, tuple[list, list[str]]] = {
    "encoder": ([None, 18, "resnet51", "timm", ""], ["text", "resnet50", "timm/<model>"]),
    "img_size": ([0, 7, -5, 160, 200, 4128, 10**9, True, 512.0, "512"], ["32", "192", "4096"]),
    "source_crop": ([0, -1, 768.0, False, 10**9], ["from 1", "None"]),
    "fit": (["crop", None, True], ["squeeze", "pad"]),
    "batch_size": ([0, -2, True, 4.0, None, 10**400], ["from 1"]),
    "accumulate": ([0, True], ["from 1"]),
    "augmentation_level": ([999, 0, True, "10", []], ["10", "20", "21"]),
    "box_points": (["thirds ", 3, None], ["thirds", "corners"]),
    "hflip": ([1, "yes", None], ["True or False"]),
    "clip_boxes": ([0], ["True or False"]),
    "grey": (["full", None], ["viewer", "range"]),
    "reduction": (["mean", None], ["subsample", "area", "auto"]),
    "pretrained": ([1, "False"], ["True or False"]),
    "input_channels": ([2, 0, True, "3", None], ["3 or 1"]),
    "normalisation": (
        [
            "imagenet",
            None,
            (),
            (0.5,),
            (0.5, 0.0),
            (0.5, -1.0),
            (11.0, 1.0),
            (0.5, math.nan),
            (math.nan, 0.5),
            (0.5, 0.5, 0.5),
            [0.5, 0.5],
            ("0.5", "0.5"),
            (True, True),
        ],
        ["'none' or 'encoder' or a mean"],
    ),
    "batch_norm": (["freeze", True], ["auto", "frozen", "train"]),
    "dropout_class": ([7, 1, -0.1, math.nan, "0.5", True], ["from 0 to 1"]),
    "dropout_global": ([1.0], ["from 0 to 1"]),
    "pyramid_levels": (
        [(), (3, 5), (5, 4), (6, 7), (1, 2, 3, 4, 5), (2, 3, 4), (4, 5, 6, 7, 8), [3, 4, 5], 5],
        ["consecutive"],
    ),
    "pyramid_width": ([0, 256.0, 10**9], ["from 1"]),
    "head_depth": ([-1, None, 65], ["from 0"]),
    "anchor_size": ([0, -4.0, 101, math.nan, "4", True], ["above 0"]),
    "anchor_ratios": (
        [
            (),
            (1.0, 1.0),
            (0.0,),
            (-1.0, 1.0),
            (math.nan,),
            (math.inf,),
            (True,),
            ("1",),
            [1.0],
            1.0,
            tuple(range(1, 18)),
        ],
        ["1 to 16 different numbers"],
    ),
    "anchor_scales": ([(), (0.0, 1.0), None], ["1 to 16 different numbers"]),
    "focal_alpha": ([-0.1, 1.1, None, False], ["from 0 to 1"]),
    "focal_gamma": ([-1, 10.5, math.nan], ["from 0 to 10"]),
    "box_loss": (["l1", None, 1], ["smooth_l1", "giou"]),
    "smooth_l1_beta": ([-0.1, 1.5, "1/9"], ["from 0 to 1"]),
    "box_loss_weight": ([-1, 1001, math.inf, True], ["from 0 to 1000"]),
    "global_loss_weight": ([-0.1, 10**400], ["from 0 to 1000"]),
    "positive_iou": ([0, 1.1, None, 0.3], ["above 0, at most 1", "positive_iou"]),
    "negative_iou": ([0, 1.1, math.nan, 0.6], ["above 0, at most 1", "at most positive_iou"]),
    "min_score": ([-0.1, 2, None], ["from 0 to 1"]),
    "min_share_of_top": ([-1, 1.5, math.nan], ["from 0 to 1"]),
    "voting_iou": ([0, -0.5, 1.1, None, math.nan], ["above 0, at most 1"]),
    "optimizer": (["lamb", "Adam", None], ["adam", "adamw", "sgd"]),
    "learning_rate": ([0, -1e-5, 10, math.nan, math.inf, "1e-5", True], ["above 0"]),
    "weight_decay": ([-0.1, 1.1, math.nan, True, 0.05], ["from 0 to 1", "optimizer 'adamw'"]),
    "layer_decay": ([0, 1.1, None, 0.9], ["above 0, at most 1", "optimizer 'adamw'"]),
    "scheduler": (["linear"], ["plateau", "milestones", "one_cycle", "cosine"]),
    "warmup_share": ([-0.1, 1, "0.1", 0.1], ["from 0 to 1", "scheduler 'cosine'"]),
    "ema_decay": ([-0.1, 1, math.nan, None], ["from 0 to 1"]),
    "clip_norm": ([0, -1.0, math.nan, math.inf, False, 10**400], ["above 0"]),
    "n_epochs": ([0, 1.5, True, 10**9], ["from 1"]),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (values, _) in WRONG.items() for value in values]
)
def test_a_wrong_setting_is_refused_in_one_line_that_says_what_is_right(name, value):
    for make in (
        lambda: replace(DEMO, **{name: value}),
        lambda: Experiment(**(asdict(DEMO) | {name: value})),
    ):
        with pytest.raises(InputError) as caught:
            make()
        message = str(caught.value)
        assert name in message or (name == "encoder" and "unknown encoder" in message)
        assert show_value(value) in message or "negative_iou" in message
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
        {"anchor_ratios": (1,), "anchor_scales": (100.0, 0.5), "anchor_size": 0.1},
        {"focal_alpha": 0, "focal_gamma": 0, "smooth_l1_beta": 0},
        {"box_loss_weight": 0, "global_loss_weight": 1000},
        {"positive_iou": 0.4, "negative_iou": 0.4},
        {"min_score": 0, "min_share_of_top": 1, "voting_iou": 1},
        {"input_channels": 1, "normalisation": "encoder"},
        {"normalisation": (-10, 10)},
        {"normalisation": (0.5, 1 / 2048)},
        {"optimizer": "adamw", "weight_decay": 1, "layer_decay": 0.5},
        {"scheduler": "cosine", "warmup_share": 0, "ema_decay": 0.9999},
    ],
)
def test_the_limits_of_a_setting_belong_to_it(change):
    changed = replace(DEMO, **change)
    assert {name: getattr(changed, name) for name in change} == change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"'rad_dino' with encoder 'timm/regnetx_002'; .*'timm/vit_base_patch14_dinov2'"),
        (
            {"encoder": "timm/densenet121", "pretrained": "xrv_densenet121_all"},
            r"with input_channels 3; these weights are of input_channels 1",
        ),
    ],
)
def test_named_weights_need_their_encoder(change, message):
    with pytest.raises(InputError, match=message):
        replace(DEMO, **{"pretrained": "rad_dino", **change})


def test_layers_of_an_encoder_that_does_not_number_them_learn_alike():
    with pytest.raises(InputError, match=r"layer_decay cannot be 0\.8; resnet18 has no numbered"):
        replace(DEMO, encoder="resnet18", optimizer="adamw", layer_decay=0.8)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adam" * 1000},
        {"encoder": "resnet" * 1000},
        {"batch_size": 10**5000},
        {"anchor_ratios": tuple(range(10**5))},
    ],
)
def test_a_very_long_value_is_cut_off_in_the_message(change):
    with pytest.raises(InputError) as caught:
        replace(DEMO, **change)
    assert len(str(caught.value)) < 400


def test_the_defaults_of_anchors_losses_and_candidates_are_the_papers():
    assert (DEMO.anchor_shapes, DEMO.loss, DEMO.limits) == (
        AnchorShapes(size=4, ratios=(0.5, 1, 2), scales=(1, 2 ** (1 / 3), 2 ** (2 / 3))),
        LossSettings(alpha=0.25, gamma=2, beta=1 / 9, box_weight=1, global_weight=0.1,
                     positive_iou=0.5, negative_iou=0.4),
        CandidateLimits(min_score=0.025, min_share_of_top=0.5, voting_iou=1),
    )  # fmt: skip


def test_settings_that_came_later_have_their_defaults():
    settings = asdict(replace(DEMO, normalisation="none"))
    stored = dict(settings)
    del stored["clip_boxes"], stored["normalisation"], stored["ema_decay"]
    assert with_defaults(stored) == settings


def test_settings_that_came_later_are_what_runs_did_before():
    """Their defaults came with them: older runs were trained in the former way."""
    stored = asdict(DEMO)
    del stored["grey"], stored["reduction"]
    assert with_defaults(stored) == asdict(DEMO) | {"grey": "range", "reduction": "subsample"}
    assert with_defaults(stored | {"reduction": "area"})["reduction"] == "area"
