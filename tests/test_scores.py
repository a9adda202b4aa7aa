import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from src.datasets.annotations import IMAGE_SIZE, read_label_files
from src.prediction.postprocess import gate_scores, shrink_boxes, suppress_at
from src.prediction.predictions import Predictions, PredictionsError
from src.prediction.presets import GATES
from src.scores import main
from src.scoring.sweep import (
    AXES,
    SCORE_THRESHOLDS,
    Grid,
    ScoresError,
    Sweep,
    load_sweep,
    saved_threshold,
    sweep_epoch,
    sweep_run,
)
from tests import oracles
from tests.paths import shared
from tests.prediction.test_predictions import Exploit, offsets_of, random_predictions

THRESHOLDS = (0.0, 0.3, 1.0, 2.0, 4.0, 6.0)


def xywh(boxes_xyxy):
    return [(x, y, x2 - x, y2 - y) for x, y, x2, y2 in boxes_xyxy.astype(float)]


def plain_gate(score, probs, gate):
    """The gates as ../shared/facts.md states them."""
    category = probs[2] + 0.1 * probs[0]
    return {
        "score": score * 5,
        "score_category": score * category * 10,
        "sqrt_score_category": math.sqrt(score * category) * 5,
    }[gate]


def plain_score(predictions, gate, shrink, nms, threshold):
    """The challenge's score of one combination, image by image and box by box."""
    images = []
    for image in range(len(predictions)):
        rows = predictions.candidates_of(image)
        boxes, scores = predictions.boxes_xyxy[rows].astype(float), predictions.scores[rows]
        probs = predictions.class_probs[image].astype(float)
        kept = oracles.nms(boxes, scores, nms)
        shrunk = [
            (x + w * (1 - shrink) / 2, y + h * (1 - shrink) / 2, w * shrink, h * shrink)
            for x, y, w, h in xywh(boxes[kept])
        ]
        true = xywh(predictions.true_boxes_xyxy[predictions.truth_of(image)])
        images.append((true, shrunk, [plain_gate(float(s), probs, gate) for s in scores[kept]]))
    return oracles.dataset_score(images, threshold)


def make_sweep(scores, epochs=(0, 1), thresholds=(0.1, 0.3)):
    scores = np.asarray(scores, dtype=np.float64).reshape(len(epochs), 1, 1, 1, len(thresholds))
    return Sweep(epochs, ("score",), (1.0,), (0.05,), thresholds, scores, {"model": "demo"})


def save_run(folder, *epochs):
    run_dir = folder / "demo_fold_0"
    for epoch in epochs:
        path = run_dir / "predictions" / f"{epoch:03}.npz"
        random_predictions(epoch, epoch=epoch).save(path)
    return run_dir


@pytest.mark.parametrize("seed", range(5))
def test_sweep_epoch_equals_the_plain_loops(seed):
    predictions = random_predictions(seed, n_images=20)
    shrinks, nms = (1.0, 0.875), (0.05, 0.4)
    grid = Grid(thresholds=THRESHOLDS, nms=nms, shrinks=shrinks, gates=GATES)
    fast = sweep_epoch(predictions, grid)
    slow = [
        [[[plain_score(predictions, g, s, n, t) for t in THRESHOLDS] for n in nms] for s in shrinks]
        for g in GATES
    ]
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)
    assert len(np.unique(fast)) > 20, "the settings must matter for this to say anything"


def test_a_perfect_detector_scores_one_on_the_real_labels():
    folder = shared("annotations")
    records = read_label_files(
        folder / "stage_2_train_labels.csv", folder / "stage_2_detailed_class_info.csv"
    )
    boxes = np.concatenate([record.boxes_xywh for record in records]).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    offsets = offsets_of([len(record.boxes_xywh) for record in records])
    predictions = Predictions(
        ids=np.array([record.patient_id for record in records]),
        image_sizes=np.full((len(records), 2), IMAGE_SIZE),
        class_probs=np.full((len(records), 3), 1 / 3, np.float32),
        offsets=offsets,
        boxes_xyxy=boxes,
        scores=np.full(len(boxes), 0.9, np.float32),
        true_offsets=offsets,
        true_boxes_xyxy=boxes,
        true_categories=np.array([record.category for record in records]),
        header={"img_size": IMAGE_SIZE},
    )
    # Real boxes overlap here and there, so nothing may be suppressed.
    score = sweep_epoch(predictions, Grid(thresholds=(0.3,), nms=(1.0,))).item()
    assert score == pytest.approx(1.0, abs=1e-12)
    assert len(boxes) == 9555


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.3, 0.7, 1.0])
def test_suppress_at_equals_the_plain_nms(threshold):
    predictions = random_predictions(3, n_images=30)
    kept = suppress_at(predictions, [0.9, threshold])[1]
    for image in range(len(predictions)):
        rows = predictions.candidates_of(image)
        expected = oracles.nms(predictions.boxes_xyxy[rows], predictions.scores[rows], threshold)
        assert np.flatnonzero(kept[rows]).tolist() == expected


def test_suppress_at_leaves_other_images_alone():
    predictions = random_predictions(3, n_images=10)
    every = suppress_at(predictions, [0.05])[0]
    some = suppress_at(predictions, [0.05], images=[2, 5])[0]
    for image in range(10):
        rows = predictions.candidates_of(image)
        assert np.array_equal(some[rows], every[rows]) if image in (2, 5) else some[rows].all()
    assert not every.all()


@pytest.mark.parametrize("gate", GATES)
def test_gate_scores_equal_the_formulas(gate):
    predictions = random_predictions(4)
    image = np.repeat(np.arange(len(predictions)), np.diff(predictions.offsets))
    expected = [
        plain_gate(float(score), predictions.class_probs[i].astype(float), gate)
        for score, i in zip(predictions.scores, image, strict=True)
    ]
    np.testing.assert_allclose(gate_scores(predictions, gate), expected, rtol=1e-14)


def test_shrink_boxes_keeps_the_centre():
    np.testing.assert_array_equal(
        shrink_boxes(np.array([[10.0, 20.0, 80.0, 40.0]]), 0.5), [[30, 30, 40, 20]]
    )


def test_predictions_without_truth_are_not_scored():
    unlabelled = replace(random_predictions(), true_categories=np.full(8, -1))
    with pytest.raises(ScoresError, match="hold no true boxes"):
        sweep_epoch(unlabelled)


def test_the_thresholds_are_those_of_the_original():
    assert SCORE_THRESHOLDS[:8] == (0.05, 0.1, 0.15, 0.2, 0.25, 0.28, 0.3, 0.35)
    assert len(SCORE_THRESHOLDS) == 18


def test_best_takes_the_earlier_epoch_and_the_lower_threshold_of_equal_scores():
    best = make_sweep([[0.1, 0.5], [0.5, 0.5]]).best()
    assert (best["epoch"], best["threshold"], best["score"]) == (0, 0.3, 0.5)
    assert make_sweep([[0.1, 0.5], [0.5, 0.5]]).best(1)["threshold"] == 0.1


def test_best_keeps_to_the_epoch_that_is_asked_for():
    sweep = make_sweep([[0.1, 0.2], [0.8, 0.9]], epochs=(3, 7))
    assert sweep.best()["epoch"] == 7
    assert sweep.best(3) == {
        "epoch": 3, "gate": "score", "shrink": 1.0, "nms": 0.05, "threshold": 0.3, "score": 0.2
    }  # fmt: skip
    with pytest.raises(ScoresError, match=r"epoch 5 was not scored, only \[3, 7\]"):
        sweep.best(5)


def test_best_passes_over_scores_that_do_not_exist():
    sweep = make_sweep([[np.nan, 0.2], [np.nan, np.nan]])
    assert sweep.best()["score"] == 0.2
    with pytest.raises(ScoresError, match="there is no score"):
        sweep.best(1)


def test_sweep_comes_back_as_it_was_saved(tmp_path):
    saved = make_sweep([[0.1, np.nan], [0.3, 1 / 3]], epochs=(2, 4))
    saved.save(tmp_path / "scores.npz")
    loaded = load_sweep(tmp_path / "scores.npz")
    assert loaded.axes() == saved.axes()
    assert loaded.header == {"model": "demo"}
    np.testing.assert_array_equal(loaded.scores, saved.scores)


def test_sweep_writes_a_tidy_table_beside(tmp_path):
    make_sweep([[0.1, 0.2], [0.3, 0.4]]).save(tmp_path / "scores.npz")
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table.columns.tolist() == [*AXES, "score"]
    row = table[(table["epoch"] == 1) & (table["threshold"] == 0.1)]
    assert row["score"].item() == 0.3


def test_a_saved_threshold_is_the_best_of_its_epoch_and_gate(tmp_path):
    path = tmp_path / "scores.npz"
    assert saved_threshold(path, 0, "score") is None
    make_sweep([[0.1, 0.2], [0.4, 0.3]]).save(path)
    assert [saved_threshold(path, epoch, "score") for epoch in (0, 1, 2)] == [0.3, 0.1, None]
    assert saved_threshold(path, 0, "score_category") is None


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


def test_a_scores_file_whose_axes_do_not_fit_is_refused(tmp_path):
    path = tmp_path / "scores.npz"
    axes = {name: np.arange(2) for name in AXES}
    arrays = axes | {"scores": np.zeros((2, 2, 2, 2, 3)), "header": np.array("{}")}
    np.savez(path, allow_pickle=False, **arrays)
    with pytest.raises(ScoresError, match="not a scores file"):
        load_sweep(path)


def test_damage_anywhere_in_a_scores_file_is_refused_or_harmless(tmp_path):
    path = tmp_path / "scores.npz"
    make_sweep([[0.1, 0.2], [0.3, 0.4]]).save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    n_refused = 0
    for _ in range(600):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_sweep(path)
        except ScoresError:
            n_refused += 1
    assert n_refused > 200


def test_pickled_code_in_a_scores_file_does_not_run(tmp_path):
    path, touched = tmp_path / "scores.npz", tmp_path / "touched"
    axes = {name: np.arange(1) for name in AXES}
    exploit = np.array([Exploit(touched)], dtype=object)
    np.savez(
        path,
        allow_pickle=True,
        **(axes | {"epoch": exploit, "scores": exploit, "header": exploit}),
    )
    with pytest.raises(ScoresError, match="not a scores file"):
        load_sweep(path)
    path.write_bytes(pickle.dumps(Exploit(touched)))
    with pytest.raises(ScoresError, match="not a scores file"):
        load_sweep(path)
    assert not touched.exists()


def test_sweep_run_scores_the_saved_epochs_in_order(tmp_path):
    grid = Grid(thresholds=THRESHOLDS)
    sweep = sweep_run(save_run(tmp_path, 10, 2, 3), grid=grid)
    assert sweep.epochs == (2, 3, 10)
    assert sweep.header == {"model": "demo", "fold": 0, "tag": ""}
    for i, epoch in enumerate(sweep.epochs):
        single = sweep_epoch(random_predictions(epoch), grid)
        np.testing.assert_array_equal(sweep.scores[i], single)


def test_sweep_run_takes_the_epochs_that_are_named(tmp_path):
    assert sweep_run(save_run(tmp_path, 0, 1, 2), [2, 0, 2]).epochs == (0, 2)


def test_sweep_run_names_what_is_missing(tmp_path):
    with pytest.raises(PredictionsError, match="nothing: "):
        sweep_run(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PredictionsError, match="holds no predictions; --action train"):
        sweep_run(tmp_path / "empty")
    with pytest.raises(PredictionsError, match=r"no predictions of epoch 4; it has \[0, 1\]"):
        sweep_run(save_run(tmp_path, 0, 1), [0, 4])


def test_the_command_scores_runs_by_relative_path(tmp_path, call_main, monkeypatch):
    save_run(tmp_path / "with space", 0, 1)
    monkeypatch.chdir(tmp_path / "with space")
    outcome = call_main(main, "demo_fold_0", "--nms", "0.05", "0.5", "--epochs", "1")
    sweep = load_sweep(tmp_path / "with space" / "demo_fold_0" / "sweep.npz")
    assert sweep.epochs == (1,)
    assert sweep.nms == (0.05, 0.5)
    assert f"best score {sweep.best()['score']:.4f} " in outcome.out
    assert "at --epoch 1 --gate " in outcome.out
    assert (tmp_path / "with space" / "demo_fold_0" / "sweep.csv").exists()
    assert outcome.err == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--nms", "much"], "'much' is not a finite number"),
        (["--nms", "5"], "5 is not between 0 and 1"),
        (["--thresholds", "nan"], "'nan' is not a finite number"),
        (["--shrinks", "-1"], "-1 is not above 0"),
        (["--gates", "other"], "--gates"),
        (["--epochs", "7"], "7"),
        (["--unknown"], "--unknown"),
        (["--truth-classes", "c.csv"], "--truth-classes needs --truth"),
        (["--truth", "t.csv", "--gates", "score"], "--truth cannot be combined with --gates"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(tmp_path, call_main, listing, flags, words):
    run_dir = save_run(tmp_path, 0)
    before = listing(tmp_path)
    outcome = call_main(main, run_dir, *flags)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert words in outcome.err
    assert listing(tmp_path) == before


def test_the_header_of_a_sweep_is_plain_json(tmp_path):
    make_sweep([[0.1, 0.2], [0.3, 0.4]]).save(tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as file:
        assert json.loads(str(file["header"])) == {"model": "demo"}


def test_values_that_are_named_twice_or_in_disorder_count_once_in_order(tmp_path, call_main):
    run_dir = tmp_path / "run"
    for epoch in (0, 1):
        random_predictions(epoch=epoch).save(run_dir / "predictions" / f"{epoch:03}.npz")
    flags = ("--epochs", "1", "0", "1", "--thresholds", "0.5", "0.1", "0.5", "--nms", "0.1", "0.1",
             "--gates", "score", "score", "--shrinks", "1", "1")  # fmt: skip
    outcome = call_main(main, run_dir, *flags)
    assert outcome.code == 0, outcome.err
    sweep = load_sweep(run_dir / "sweep.npz")
    assert sweep.axes() == [(0, 1), ("score",), (1.0,), (0.1,), (0.1, 0.5)]
