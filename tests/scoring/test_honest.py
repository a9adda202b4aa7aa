"""The score at settings that other images chose."""

from dataclasses import replace

import numpy as np
import pytest

from src.metric import bootstrap_interval, image_scores
from src.prediction.postprocess import choose_boxes
from src.prediction.predictions import load_predictions
from src.scoring.grid import Grid, sweep_pooled, sweep_run, sweep_sums
from src.scoring.honest import N_PARTS, honest_score
from tests.made_predictions import (
    make_predictions,
    random_predictions,
    save_epoch,
    save_folds,
)

GRID = Grid(gates=("score", "score_category"), shrinks=(1.0, 0.9), nms=(0.05, 0.3))
BOX = [20, 20, 80, 80]


def test_each_fold_is_scored_at_the_setting_that_is_best_on_the_others(tmp_path):
    run_dirs = save_folds(tmp_path)
    honest = honest_score(run_dirs, sweep_pooled(run_dirs, None, GRID))
    scores = []
    for fold, run_dir in enumerate(run_dirs):
        others = [other for other in run_dirs if other != run_dir]
        best = sweep_pooled(others, None, GRID).best()
        assert best is not None
        setting = honest.settings[fold]
        assert setting is not None
        assert setting.postprocess == best.postprocess
        assert setting.score == pytest.approx(best.score, abs=1e-12)
        images = load_predictions(run_dir / "predictions" / f"{best.epoch:03}.npz")
        scores.append(image_scores(choose_boxes(images, best.postprocess).boxes, images.truth()))
    np.testing.assert_array_equal(honest.image_scores, np.concatenate(scores))
    assert honest.score == np.nanmean(honest.image_scores)
    low, high = honest.interval()
    assert low < honest.score < high


def test_the_best_of_many_settings_by_chance_is_no_better_elsewhere(tmp_path):
    """Scores of boxes say nothing here: a threshold that looks good does so by chance."""
    gains = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        images = []
        for _ in range(60):
            true = [BOX] if rng.random() < 0.5 else []
            images.append((true, [(BOX, float(rng.uniform(0.05, 1)))]))
        run_dir = tmp_path / str(seed)
        save_epoch(run_dir, make_predictions(*images))
        sweep = sweep_run(run_dir, None, Grid(thresholds=tuple(np.linspace(0.2, 5, 200))))
        best = sweep.best()
        assert best is not None
        gains.append(best.score - honest_score([run_dir], sweep).score)
    assert np.mean(gains) > 0.01


def test_the_parts_of_a_run_depend_on_the_names_of_its_images_alone(tmp_path):
    predictions = random_predictions(n_images=40)
    for name, epochs in (("one", (0,)), ("two", (0, 1))):
        for epoch in epochs:
            save_epoch(tmp_path / name, random_predictions(n_images=40, epoch=epoch))
    sweep = sweep_run(tmp_path / "one", None, GRID)
    again = sweep_run(tmp_path / "two", [0], GRID)
    first, second = (
        honest_score([tmp_path / name], each) for name, each in (("one", sweep), ("two", again))
    )
    assert len(first.settings) == N_PARTS
    assert len(first.image_scores) == len(predictions)
    np.testing.assert_array_equal(first.image_scores, second.image_scores)


def test_the_images_of_a_patient_are_in_one_part(tmp_path, monkeypatch):
    predictions = random_predictions(n_images=40)
    groups = np.array([f"P{i // 5}" for i in range(40)])
    save_epoch(tmp_path / "run", replace(predictions, group_ids=groups))
    parts = []

    def keep_groups(part, grid):
        parts.append(set(part.group_ids.tolist()))
        return sweep_sums(part, grid)

    monkeypatch.setattr("src.scoring.honest.sweep_sums", keep_groups)
    honest = honest_score([tmp_path / "run"], sweep_run(tmp_path / "run", None, GRID))
    assert len(parts) == N_PARTS and sum(map(len, parts)) == len(set.union(*parts)) == 8
    assert len(set(honest.patients.tolist())) == 8
    assert honest.interval() == bootstrap_interval(honest.image_scores, honest.patients)
    assert honest.interval() != bootstrap_interval(honest.image_scores)


def test_images_whose_others_hit_nothing_score_as_without_a_box(tmp_path):
    run_dirs = [tmp_path / f"demo_fold_{fold}" for fold in (0, 1)]
    for fold, run_dir in enumerate(run_dirs):
        part = make_predictions(([BOX], [([100, 100, 160, 160], 0.9)]), ([], []),
                                ids=[f"a{fold}", f"b{fold}"])  # fmt: skip
        save_epoch(run_dir, part)
    honest = honest_score(run_dirs, sweep_pooled(run_dirs, None, GRID))
    assert honest.settings == (None, None)
    np.testing.assert_array_equal(honest.image_scores, [0, np.nan, 0, np.nan])
    assert honest.score == 0


def test_a_fold_of_one_run_has_no_score_without_an_image_that_counts(tmp_path):
    save_epoch(tmp_path / "run", make_predictions(([], []), ([], [])))
    honest = honest_score([tmp_path / "run"], sweep_run(tmp_path / "run", None, GRID))
    assert np.isnan(honest.score)
