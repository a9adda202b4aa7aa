import numpy as np
import pytest

from src.actions.flags import parse_flags
from src.actions.networks import settle_boxes, settle_networks
from src.actions.resolve import choose_epochs
from src.experiments.runs import Run
from src.system.errors import InputError
from src.system.files import write_json
from tests.made_checkpoints import make_checkpoint
from tests.made_predictions import make_sweep


@pytest.fixture
def choose(tmp_path):
    """Return a function that chooses members by flags, and gives back fold, epoch and weight."""

    def call(*flags):
        command = ["--action", "generate_predictions", "--model", "demo", *flags]
        parsed = parse_flags(command, data_dir=tmp_path, output_dir=tmp_path)
        members = [
            member
            for networks in settle_networks(parsed, downloads_dir=tmp_path)
            for member in networks.members
        ]
        return [(member.run.fold, member.epoch, member.weight) for member in members]

    return call


def save_epochs(output_dir, epochs_by_fold):
    for fold, epochs in epochs_by_fold.items():
        for epoch in epochs:
            path = Run("demo", fold, "", output_dir).checkpoint_path(epoch)
            make_checkpoint(epoch=epoch).save(path)


def test_networks_weigh_alike_by_default(choose, tmp_path):
    save_epochs(tmp_path, {0: [3, 4], 1: [4]})
    assert choose("--folds", "0", "1", "--from-epoch", "3") == [(0, 3, 1), (0, 4, 1), (1, 4, 1)]


def test_a_runs_weight_is_shared_out_among_its_own_epochs(choose, tmp_path):
    save_epochs(tmp_path, {0: [3, 4], 1: [4]})
    members = choose("--folds", "0", "1", "--from-epoch", "3", "--run-weights", "3", "1")
    assert members == [(0, 3, 1.5), (0, 4, 1.5), (1, 4, 1)]


def test_each_run_brings_its_last_epoch_where_none_is_named(choose, tmp_path):
    save_epochs(tmp_path, {0: [3, 4], 2: [1, 7]})
    assert choose("--folds", "0", "2") == [(0, 4, 1), (2, 7, 1)]


@pytest.mark.parametrize(("own", "epoch"), [([], 2), ([0, 1], 7)])
def test_scores_of_other_weights_of_that_name_choose_no_epoch(choose, tmp_path, own, epoch):
    weights_dir, run = tmp_path / "elsewhere", Run("demo", 0, "", tmp_path)
    save_epochs(weights_dir, {0: [2, 7]})
    save_epochs(tmp_path, {0: own})
    make_sweep([[1.0]], epochs=(2,)).save(run.scores_path)
    assert choose("--weights_dir", str(weights_dir)) == [(0, epoch, 1)]


def test_scores_beside_the_weights_choose_the_epoch(choose, tmp_path):
    run = Run("demo", 0, "", tmp_path / "elsewhere")
    save_epochs(run.output_dir, {0: [2, 7]})
    make_sweep([[1.0]], epochs=(2,)).save(run.scores_path)
    assert choose("--weights_dir", str(run.output_dir)) == [(0, 2, 1)]


def test_a_run_of_weight_zero_need_not_be_there(choose, tmp_path):
    save_epochs(tmp_path, {0: [3]})
    assert choose("--folds", "0", "1", "--run-weights", "1", "0") == [(0, 3, 1)]
    with pytest.raises(InputError, match=r"demo_fold_1: .*checkpoints"):
        choose("--folds", "0", "1")


def test_the_folder_of_another_run_is_refused_in_an_ensemble(choose, tmp_path):
    save_epochs(tmp_path, {0: [3], 1: [3]})
    write_json(Run("demo", 1, "", tmp_path).experiment_path, {"model": "dem", "tag": "o"})
    with pytest.raises(InputError, match=r"demo_fold_1: .*--model dem --run o"):
        choose("--folds", "0", "1")


def test_epochs_that_the_flags_name_are_taken(tmp_path):
    run = Run("demo", 0, "", tmp_path)
    for flags, epochs in (
        ([], None), (["--epochs", "7", "2", "7"], [7, 2]), (["--from-epoch", "2"], [2, 5]),
        (["--num-epochs", "3"], [0, 2]), (["--from-epoch", "1", "--num-epochs", "3"], [2]),
    ):  # fmt: skip
        command = ["--action", "check_metric", *flags]
        parsed = parse_flags(command, data_dir=tmp_path, output_dir=tmp_path)
        assert choose_epochs(parsed, [0, 2, 5], run) == epochs


@pytest.mark.parametrize(
    ("score", "epoch", "threshold"), [(0.5, 0, 0.1), (0.0, 1, 0.3), (np.nan, 1, 0.3)]
)
def test_an_epoch_that_hits_nothing_is_not_the_best(tmp_path, score, epoch, threshold):
    run = Run("demo", 0, "", tmp_path)
    save_epochs(tmp_path, {0: [0, 1]})
    make_sweep([[score], [0.0]]).save(run.scores_path)
    command = ["--action", "generate_predictions", "--model", "demo"]
    flags = parse_flags(command, data_dir=tmp_path, output_dir=tmp_path)
    (networks,) = settle_networks(flags, downloads_dir=tmp_path)
    assert networks.last_epoch == epoch
    assert settle_boxes(flags, networks).threshold == threshold


def test_epochs_that_are_named_are_taken_one_by_one(choose, tmp_path):
    save_epochs(tmp_path, {0: [0, 1, 2]})
    assert choose("--epochs", "2", "0") == [(0, 2, 1), (0, 0, 1)]
