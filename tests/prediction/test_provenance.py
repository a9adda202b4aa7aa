"""Which networks can predict together, and what the header of their predictions says of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS
from src.prediction.predictions import load_predictions
from src.prediction.presets import Postprocess
from src.prediction.provenance import (
    Combination,
    Member,
    NetworkId,
    NetworkSet,
    Provenance,
    trained_provenance,
)
from src.system.errors import InputError
from tests.made_predictions import random_predictions

DEMO = EXPERIMENTS["demo"]

# As the version before `Provenance` wrote them.
HEADER_OF_ONE = """
{"format": "pneumonia-predictions", "version": 1, "img_size": 192, "source_crop": null,
 "frame": "pixels of the network input", "model": "demo", "fold": 1, "tag": "", "epoch": 3}
"""
HEADER_OF_AN_ENSEMBLE = """
{"format": "pneumonia-predictions", "version": 1, "img_size": 192, "source_crop": null,
 "frame": "pixels of the network input", "model": "demo+other", "fold": null,
 "tag": "late_ensemble", "epoch": 7, "ensemble": {"members": [
  {"model": "demo", "tag": "late", "fold": 0, "epoch": 7, "weight": 0.75},
  {"model": "other", "tag": "late", "fold": 1, "epoch": 2, "weight": 0.25}],
  "hflip": true, "size_rule": "percentile", "k": 1.6}}
"""


def member(model="demo", fold=0, epoch=0, *, tag="", weight=1.0, **changes):
    run = Run(model, fold, tag, Path("output"))
    return Member(
        run=run,
        experiment=replace(DEMO, **changes),
        epoch=epoch,
        path=run.checkpoint_path(epoch),
        weight=weight,
    )


def networks_of(*members, hflip=False):
    return NetworkSet(members=members, hflip=hflip)


ENSEMBLE = networks_of(
    member(tag="late", epoch=7, weight=3.0),
    member("other", fold=1, tag="late", epoch=2),
    hflip=True,
)


def test_networks_of_different_encoders_folds_and_epochs_are_combined():
    others = [member(fold=1), member(epoch=1), member("other", encoder="resnet18", pyramid_width=8)]
    assert networks_of(member(), *others).combines


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"img_size": 256}, "img_size is 192 and 256"),
        ({"source_crop": 768}, "source_crop is None and 768"),
        ({"fit": "pad"}, "fit is squeeze and pad"),
        ({"pyramid_levels": (2, 3, 4, 5)}, r"pyramid_levels is \(3, .*7\) and \(2, 3, 4, 5\)"),
    ],
)
def test_networks_that_cannot_be_combined_are_named_with_the_difference(changes, difference):
    with pytest.raises(InputError, match=f"^demo and other .*: {difference}$"):
        networks_of(member(), member(fold=1), member("other", **changes))


def test_a_network_that_is_named_twice_is_refused():
    with pytest.raises(InputError, match=r"demo_fold_1 epoch 3 .* twice"):
        networks_of(member(), member(fold=1, epoch=3), member(fold=1, epoch=3))


def test_a_network_alone_predicts_for_its_own_run():
    alone = networks_of(member(fold=2, epoch=5))
    assert not alone.combines
    assert (alone.run.name, alone.fold, alone.last_epoch) == ("demo_fold_2", 2, 5)
    assert alone.experiment == DEMO


def test_mirrored_views_of_one_network_are_an_ensemble():
    mirrored = networks_of(member(fold=2, epoch=5), hflip=True)
    assert mirrored.combines
    assert (mirrored.run.name, mirrored.fold) == ("demo_ensemble_fold_2", 2)
    assert mirrored.provenance(Postprocess()).hflip


def test_networks_of_several_folds_have_none_in_common():
    assert networks_of(member(fold=1), member("other", fold=1)).fold == 1
    several = networks_of(member(fold=1, epoch=4), member(fold=2, epoch=3))
    assert (several.fold, several.last_epoch) == (None, 4)


def test_the_weights_of_an_ensemble_sum_to_one_in_files():
    networks = ENSEMBLE.provenance(Postprocess()).networks
    assert [network.weight for network in networks] == [0.75, 0.25]


def test_a_training_names_its_network_as_a_prediction_does():
    network = member(epoch=3, source_crop=768)
    trained = trained_provenance(network.run, network.experiment, 3)
    assert trained == networks_of(network).provenance(Postprocess(size_rule="percentile", k=0.9))
    assert (trained.source_crop, trained.ensemble, trained.hflip) == (768, None, False)
    assert trained.networks == (NetworkId(model="demo", tag="", fold=0, epoch=3, weight=1.0),)


@pytest.mark.parametrize(
    ("networks", "header"),
    [(networks_of(member(fold=1, epoch=3)), HEADER_OF_ONE), (ENSEMBLE, HEADER_OF_AN_ENSEMBLE)],
    ids=["one network", "ensemble"],
)
def test_the_header_is_that_of_older_files_and_comes_back(tmp_path, networks, header):
    path = tmp_path / "000.npz"
    provenance = networks.provenance(Postprocess(size_rule="percentile", k=1.6))
    replace(random_predictions(), provenance=provenance).save(path)
    with np.load(path, allow_pickle=False) as saved:
        arrays = dict(saved)
    assert json.loads(str(arrays["header"])) == json.loads(header)
    assert load_predictions(path).provenance == provenance

    older = {**arrays, "header": np.array(json.dumps(json.loads(header)))}
    np.savez(path, allow_pickle=False, **older)
    assert load_predictions(path).provenance == provenance


@pytest.mark.parametrize("side", [0, -1, 2**16 + 1, 10**400])
@pytest.mark.parametrize("name", ["img_size", "source_crop"])
def test_a_side_that_no_image_has_is_refused(name, side):
    with pytest.raises(ValueError, match=f"{name} .* 65536") as caught:
        Provenance(**{"img_size": 192, name: side})
    assert len(str(caught.value)) < 200


def test_what_made_predictions_can_be_compared_and_counted():
    first, second = (
        Provenance(img_size=192, ensemble=Combination(members=(NetworkId(fold=fold),), hflip=True))
        for fold in (0, 1)
    )
    assert len({first, second, replace(first)}) == 2
