"""The best setting, the one rule by which an epoch is chosen, and the file of the scores."""

import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from src.prediction.presets import Postprocess
from src.scoring.sweep import (
    AXES,
    BestSetting,
    ScoredRun,
    ScoresError,
    choose_epoch,
    load_sweep,
)
from tests.hostile_files import Exploit, count_refusals
from tests.made_predictions import make_sweep

SOUND: dict[str, Any] = {
    "epoch": np.arange(2),
    "gate": np.array(["score", "score_category"]),
    "shrink": np.array([1.0, 0.9]),
    "nms": np.array([0.05, 0.1]),
    "threshold": np.array([0.1, 0.3]),
    "scores": np.zeros([2] * len(AXES)),
    "header": np.array("{}"),
}


def best_of(scores, epoch=None, **options):
    best = make_sweep(scores, **options).best(epoch)
    assert best is not None
    return best


def test_best_takes_the_earlier_epoch_and_the_lower_threshold_of_equal_scores():
    best = best_of([[0.1, 0.5], [0.5, 0.5]])
    assert (best.epoch, best.threshold, best.score) == (0, 0.3, 0.5)
    assert best_of([[0.1, 0.5], [0.5, 0.5]], 1).threshold == 0.1


def test_best_keeps_to_the_epoch_that_is_asked_for():
    sweep = make_sweep([[0.1, 0.2], [0.8, 0.9]], epochs=(3, 7))
    assert best_of(sweep.scores[:, 0, 0, 0], epochs=(3, 7)).epoch == 7
    assert sweep.best(3) == BestSetting(
        epoch=3, gate="score", shrink=1.0, nms=0.05, threshold=0.3, score=0.2
    )
    with pytest.raises(ScoresError, match=r"epoch 5 .*\[3, 7\]"):
        sweep.best(5)


def test_best_passes_over_scores_that_do_not_exist():
    sweep = make_sweep([[np.nan, 0.2], [np.nan, np.nan]])
    assert best_of([[np.nan, 0.2], [np.nan, np.nan]]).score == 0.2
    assert sweep.best(1) is None


@pytest.mark.parametrize("nothing", [0.0, np.nan])
def test_there_is_no_best_where_nothing_hits_or_nothing_counts(nothing):
    sweep = make_sweep(np.full((2, 3), nothing))
    assert sweep.best() is None
    assert sweep.best(0) is None


def test_the_best_setting_says_how_its_boxes_are_chosen():
    best = BestSetting(epoch=3, gate="score_category", shrink=0.9, nms=0.1, threshold=2, score=0.5)
    assert best.postprocess == Postprocess(
        gate="score_category", shrink=0.9, nms=0.1, threshold=2,
        threshold_from="check_metric, epoch 3",
    )  # fmt: skip


def test_near_best_names_the_values_that_cost_little():
    sweep = make_sweep([[0.400, 0.397], [0.100, 0.2]], epochs=(3, 4))
    best = best_of([[0.400, 0.397], [0.100, 0.2]], epochs=(3, 4))
    near = sweep.near_best(best, tolerance=0.005)
    assert near["epoch"] == [3]
    assert near["threshold"] == [0.1, 0.3]
    assert sweep.near_best(best, tolerance=0.001)["threshold"] == [0.1]


def test_place_of_a_setting_counts_along_each_axis():
    sweep = make_sweep([[0.1, 0.2], [0.3, 0.5], [0.4, 0.3]], epochs=(2, 4, 6))
    place = sweep.place_of(sweep.best())
    assert place == {"epoch": 1, "gate": 0, "shrink": 0, "nms": 0, "threshold": 1}
    assert sweep.place_of(None) == {"epoch": 2, "gate": 0, "shrink": 0, "nms": 0, "threshold": 0}


@pytest.mark.filterwarnings("ignore:.*has nothing of epoch")
@pytest.mark.parametrize(
    ("scores", "asked", "epoch", "threshold"),
    [
        ([[0.1, 0.5], [0.4, 0.2]], None, 0, 0.3),  # the best
        ([[0.1, 0.5], [0.4, 0.2]], 1, 1, 0.1),  # the named one, at its own best
        ([[0.1, 0.5], [0.0, 0.0]], 1, 1, None),  # it hits nothing
        ([[0.1, 0.5], [np.nan, np.nan]], 1, 1, None),
        ([[0.1, 0.5], [0.4, 0.2]], 2, 2, None),  # nobody scored it
        ([[0.0, 0.0], [0.0, 0.0]], None, 2, None),  # the last one saved
        ([[np.nan, np.nan], [0.0, np.nan]], None, 2, None),
        ([[0.0, 0.0], [0.0, 0.0]], 0, 0, None),
        (None, None, 2, None),  # no scores at all
        (None, 1, 1, None),
    ],
)
def test_an_epoch_is_the_named_one_or_the_best_or_the_last(
    tmp_path, scores, asked, epoch, threshold
):
    path, saved = tmp_path / "scores.npz", [0, 1, 2]
    if scores is not None:
        make_sweep(scores).save(path)
        assert make_sweep(scores).choose(saved, asked) == choose_epoch(path, saved, asked)
    choice = choose_epoch(path, saved, asked)
    assert choice.epoch == epoch
    assert (choice.best.threshold if choice.best else None) == threshold


def choice_of(scores, asked=None):
    return make_sweep(scores).choose([0, 1], asked)


def test_the_best_threshold_fills_what_nobody_has_set():
    filled = choice_of([[0.1, 0.2], [0.8, 0.3]]).fill(Postprocess())
    assert filled == Postprocess(threshold=0.1, threshold_from="check_metric, epoch 1")


@pytest.mark.parametrize("changed", [{"nms": 0.2}, {"shrink": 0.9}, {"gate": "score_category"}])
def test_a_threshold_of_boxes_that_are_chosen_otherwise_is_warned_of(changed):
    postprocess = Postprocess(**changed)
    effect = "is not taken" if "gate" in changed else "may not fit"
    words = rf"epoch 1 with --gate score --nms 0.05 --shrink 1; .* so that it {effect}; "
    with pytest.warns(UserWarning, match=words):
        filled = choice_of([[0.1, 0.2], [0.8, 0.3]]).fill(postprocess)
    assert filled.threshold == (0.3 if "gate" in changed else 0.1)


def test_epochs_without_scores_are_named_where_the_best_is_chosen(tmp_path):
    path = tmp_path / "scores.npz"
    make_sweep([[0.1, 0.2], [0.8, 0.3]]).save(path)
    with pytest.warns(UserWarning, match=r"scores.npz: has nothing of epoch 2, 3; "):
        assert choose_epoch(path, [0, 1, 2, 3]).epoch == 1
    assert choose_epoch(path, [0, 1, 2, 3], 2).best is None  # which was asked for by name


@pytest.mark.parametrize(
    "postprocess",
    [
        Postprocess(threshold=0.7, threshold_from="flag"),
        Postprocess(threshold_from="preset"),
    ],
)
def test_a_threshold_that_is_set_stays(postprocess):
    assert choice_of([[0.1, 0.2], [0.8, 0.3]]).fill(postprocess) == postprocess


def test_the_default_threshold_stays_where_there_is_no_best():
    for scores in ([[0.0, 0.0]] * 2, [[np.nan] * 2] * 2):
        assert choice_of(scores).fill(Postprocess()) == Postprocess()
        assert choice_of(scores, 0).fill(Postprocess()).threshold == 0.3


def test_scores_that_are_something_else_choose_no_epoch(tmp_path):
    (tmp_path / "scores.npz").write_text("no scores")
    with pytest.raises(ScoresError, match=r"scores\.npz"):
        choose_epoch(tmp_path / "scores.npz", [0, 1], 1)


def test_sweep_comes_back_as_it_was_saved(tmp_path):
    saved = make_sweep([[0.1, np.nan], [0.3, 1 / 3]], epochs=(2, 4))
    saved.save(tmp_path / "scores.npz")
    loaded = load_sweep(tmp_path / "scores.npz")
    assert loaded.axes() == saved.axes()
    assert loaded.run == saved.run == ScoredRun(model="demo")
    np.testing.assert_array_equal(loaded.scores, saved.scores)


def test_the_header_of_a_sweep_is_plain_json_as_in_older_files(tmp_path):
    path, header = tmp_path / "scores.npz", {"model": "demo", "fold": 3, "tag": "late"}
    run = ScoredRun(model="demo", fold=3, tag="late")
    replace(make_sweep([[0.1]]), run=run).save(path)
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(str(file["header"])) == header
    np.savez(path, **(SOUND | {"header": np.array(json.dumps(header))}))
    assert load_sweep(path).run == run


def test_sweep_writes_a_tidy_table_beside(tmp_path):
    make_sweep([[0.1, 0.2], [0.3, 0.4]]).save(tmp_path / "scores.npz")
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table.columns.tolist() == [*AXES, "score"]
    row = table[(table["epoch"] == 1) & (table["threshold"] == 0.1)]
    assert row["score"].item() == 0.3


def test_a_scores_file_that_is_something_else_is_refused(tmp_path):
    path = tmp_path / "scores.npz"
    with pytest.raises(ScoresError, match="no such scores file"):
        load_sweep(path)
    np.savez(tmp_path / "other.npz", scores=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    contents = [b"", b"text", (tmp_path / "array.npy").read_bytes()]
    for content in [*contents, (tmp_path / "other.npz").read_bytes()]:
        path.write_bytes(content)
        with pytest.raises(ScoresError, match=r"scores\.npz: not a scores file"):
            load_sweep(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": np.zeros((2, 2, 2, 2, 3))},
        {"scores": np.zeros((2, 2, 2, 2, 2), np.float32)},
        {"epoch": np.arange(0), "scores": np.zeros((0, 2, 2, 2, 2))},
        {"epoch": np.array([0.0, 1.0])},
        {"gate": np.arange(2)},
        {"gate": np.array(["score", "sum"])},
        {"threshold": np.array(["0.1", "0.3"])},
        {"threshold": np.zeros((2, 2))},
        {"header": np.array("[]")},
        {"header": np.array('{"fold": "0"}')},
        {"header": np.array("[" * 100_000)},
    ],
)
def test_a_scores_file_whose_parts_do_not_fit_is_refused(tmp_path, changes):
    path = tmp_path / "scores.npz"
    np.savez(path, allow_pickle=False, **SOUND)
    load_sweep(path)
    np.savez(path, allow_pickle=False, **(SOUND | changes))
    with pytest.raises(ScoresError, match=r"scores\.npz: not a scores file"):
        load_sweep(path)


def test_damage_anywhere_in_a_scores_file_is_refused_or_harmless(tmp_path):
    path = tmp_path / "scores.npz"
    make_sweep([[0.1, 0.2], [0.3, 0.4]]).save(path)
    assert count_refusals(path, load_sweep, ScoresError) > 200


def test_pickled_code_in_a_scores_file_does_not_run(tmp_path):
    path, touched = tmp_path / "scores.npz", tmp_path / "touched"
    exploit = np.array([Exploit(touched)], dtype=object)
    changes = {"epoch": exploit, "scores": exploit, "header": exploit}
    np.savez(path, allow_pickle=True, **(SOUND | changes))
    with pytest.raises(ScoresError, match="not a scores file"):
        load_sweep(path)
    path.write_bytes(pickle.dumps(Exploit(touched)))
    with pytest.raises(ScoresError, match="not a scores file"):
        load_sweep(path)
    assert not touched.exists()
