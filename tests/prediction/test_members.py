from dataclasses import replace
from pathlib import Path

import pytest

from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS
from src.prediction.provenance import Member, check_members
from src.system.errors import InputError

DEMO = EXPERIMENTS["demo"]


def member(model="demo", fold=0, epoch=0, **changes):
    return Member(
        run=Run(model, fold, "", Path()), experiment=replace(DEMO, **changes), epoch=epoch
    )


def test_networks_of_different_encoders_folds_and_epochs_are_combined():
    others = [member(fold=1), member(epoch=1), member("other", encoder="resnet18", pyramid_width=8)]
    check_members([member(), *others])


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"img_size": 256}, "img_size is 192 and 256"),
        ({"source_crop": 768}, "source_crop is None and 768"),
        ({"reduction": "area"}, "reduction is auto and area"),
        ({"grey": "range"}, "grey is viewer and range"),
        (
            {"pyramid_levels": (2, 3, 4, 5)},
            r"pyramid_levels is \(3, 4, 5, 6, 7\) and \(2, 3, 4, 5\)",
        ),
    ],
)
def test_networks_that_cannot_be_combined_are_named_with_the_difference(changes, difference):
    with pytest.raises(InputError, match=f"^demo and other cannot be combined: {difference}$"):
        check_members([member(), member(fold=1), member("other", **changes)])


def test_a_network_that_is_named_twice_is_refused():
    with pytest.raises(InputError, match="demo_fold_1 epoch 3 is in the ensemble twice"):
        check_members([member(), member(fold=1, epoch=3), member(fold=1, epoch=3)])
