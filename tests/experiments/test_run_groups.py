from pathlib import Path

import pytest

from src.experiments.run_groups import distinct_names, load_groups
from tests.made_predictions import save_run
from tests.made_runs import describe_run


def named(run_dirs, average_over="folds"):
    """Group runs: name -> folders."""
    return {
        group.name: [run.run_dir for run in group.runs]
        for group in load_groups(run_dirs, average_over)
    }


def test_folds_of_a_training_are_one(tmp_path):
    runs = [describe_run(tmp_path, fold=fold) for fold in (0, 1, 2)]
    other = describe_run(tmp_path, fold=0, tag="b")
    assert named([*runs, other]) == {"demo, 3 folds": runs, "demo_b_fold_0": [other]}


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"learning_rate": 0.5}},
        {"seed": 2},
        {"tag": "b"},
        {"precision": "bf16"},
        {"data_fingerprint": "f" * 64},
        {"init_weights": {"path": "a", "sha256": "b"}},
        {"model": "twin"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_folds_that_differ_in_anything_else_are_apart(tmp_path, change):
    runs = [describe_run(tmp_path, fold=0), describe_run(tmp_path, **{"fold": 1, **change})]
    assert [len(members) for members in named(runs).values()] == [1, 1]


def test_seeds_and_tags_are_one_where_this_is_asked(tmp_path):
    runs = [
        describe_run(tmp_path, fold=fold, tag=f"s{seed}", seed=seed)
        for seed in (1, 2)
        for fold in (0, 1)
    ]
    changed = describe_run(tmp_path, tag="fast", settings={"learning_rate": 0.5})
    assert named([*runs, changed], "seeds") == {
        "demo, 4 runs": runs, "demo_fast_fold_0": [changed]
    }  # fmt: skip
    assert list(named(runs)) == ["demo_s1, 2 folds", "demo_s2, 2 folds"]
    assert len(named(runs, "nothing")) == 4


def test_folds_may_begin_with_weights_of_their_own(tmp_path):
    runs = [
        describe_run(tmp_path, fold=fold, init_weights={"path": f"{fold}.safetensors"})
        for fold in (0, 1)
    ]
    assert len(named(runs)) == 1


def test_runs_of_which_nothing_is_known_stand_alone(tmp_path):
    runs = [save_run(tmp_path / place, 0) for place in ("a", "b")]
    assert named(runs, "seeds") == {"a/demo_fold_0": [runs[0]], "b/demo_fold_0": [runs[1]]}


def test_the_same_run_in_another_folder_is_no_further_fold(tmp_path):
    runs = [describe_run(tmp_path / place) for place in ("a", "b")]
    assert len(named(runs)) == 2
    assert list(named([runs[0], tmp_path / "a" / "." / "demo_fold_0"])) == ["demo_fold_0"]


def test_groups_of_one_name_are_told_apart(tmp_path):
    rates = (0.5, 0.1)
    runs = [
        describe_run(tmp_path, fold=2 * i + fold, settings={"learning_rate": rate})
        for i, rate in enumerate(rates)
        for fold in (0, 1)
    ]
    assert named(runs) == {
        "demo, 2 folds, demo_fold_0 first": runs[:2],
        "demo, 2 folds, demo_fold_2 first": runs[2:],
    }


def test_names_have_as_many_parents_as_it_takes():
    assert distinct_names([Path("/one/a"), Path("/two/a")]) == ["one/a", "two/a"]
