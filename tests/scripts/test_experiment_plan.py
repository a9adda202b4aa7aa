"""Plans of trainings, and the commands that are made of them."""

import sys
from dataclasses import replace
from typing import Any

import pytest

from scripts.experiment_queue.jobs import RUNNER, make_jobs
from scripts.experiment_queue.plan import PlanError, TrainingGrid, read_plan
from src.actions.flags import parse_flags
from src.experiments.table import get_experiment
from src.system.errors import InputError

PLAN = """
[[experiments]]
model = ["resnet50_512", "xception_512_dr"]
folds = [0, 1]

[[experiments]]
model = ["demo"]
seeds = [1, 2]
run = "short"
set = { n_epochs = 2, pyramid_levels = [3, 4, 5], hflip = false }
flags = ["--cache"]
"""


def make(*grids, place):
    return make_jobs(grids, data_dir=place / "data", output_dir=place / "output")


def parse(command, place):
    assert command[:2] == (sys.executable, str(RUNNER))
    return parse_flags(command[2:], data_dir=place, output_dir=place)


def test_a_plan_is_an_array_of_tables(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    first, second = read_plan(path)
    assert first == TrainingGrid(model=("resnet50_512", "xception_512_dr"), folds=(0, 1))
    assert second.seeds == (1, 2)
    assert second.run == "short"
    assert second.set == {"n_epochs": 2, "pyramid_levels": [3, 4, 5], "hflip": False}
    assert second.flags == ("--cache",)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"holds no table \[\[experiments\]\]"),
        ("experiments = 3", r"holds no table \[\[experiments\]\]"),
        ("experiments = [3]", r"\[\[experiments\]\] 1: 3 is not an object"),
        ("[[experiment]]", "unknown key 'experiment'; did you mean experiments?"),
        ("[[experiments]]\nmodle = ['demo']", "unknown key 'modle'; did you mean model?"),
        ("[[experiments]]\nfolds = [1]", "1: field model is missing"),
        ("[[experiments]]\nmodel = 'demo'", "1: model cannot be 'demo'; it must be a list of"),
        ("[[experiments]]\nmodel = []", "1: model cannot be .* at least one experiment"),
        ("[[experiments]]\nmodel = ['demo']\nfolds = [true]", "1: folds cannot be"),
        ("[[experiments]]\nmodel = ['demo']\nset = 1", "1: set cannot be 1"),
        ("[[experiments]", "not a readable TOML file: Expected"),
        ("x = " + 5000 * "[", "not a readable TOML file"),
    ],
)
def test_a_plan_that_is_wrong_is_refused(tmp_path, text, match):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(PlanError, match=match) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_plan_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match="not a readable TOML file: 'utf-8' codec"):
        read_plan(path)


def test_a_grid_is_every_model_on_every_fold_with_every_seed():
    grid = TrainingGrid(model=("a", "b"), folds=(0, 1), seeds=(7, 8))
    assert len(set(grid.trainings())) == 8
    assert list(TrainingGrid(model=("a",)).trainings()) == [("a", 0, None)]


def test_settings_are_words_of_the_command_line():
    grid = TrainingGrid(
        model=("a",), set={"img_size": 224, "anchor_ratios": [0.5, 1, 2], "hflip": True}
    )
    assert grid.settings_words() == ["--set", "img_size=224", "anchor_ratios=0.5,1,2", "hflip=True"]
    assert TrainingGrid(model=("a",)).settings_words() == []


def test_a_grid_is_changed_for_all_of_a_plan():
    grid = TrainingGrid(
        model=("a",), run="own", set={"img_size": 512, "n_epochs": 9}, flags=("--cache",)
    )
    settings = {"img_size": 192, "pyramid_levels": (3, 4, 5)}
    changed = grid.changed("rehearsal", settings, ["--device", "cpu"])
    assert changed.run == "rehearsal_own"
    assert changed.flags == ("--cache", "--device", "cpu")
    words = ["--set", "img_size=192", "n_epochs=9", "pyramid_levels=3,4,5"]
    assert changed.settings_words() == words


def test_a_job_is_a_training_that_goes_on_and_its_scores(tmp_path):
    (job,) = make(TrainingGrid(model=("demo",), folds=(2,), flags=("--cache",)), place=tmp_path)
    train = parse(job.train, tmp_path)
    assert (train.action, train.model, train.fold, train.run) == ("train", "demo", 2, "")
    assert train.resume and train.cache
    assert train.data_dir == tmp_path / "data"
    scores = parse(job.check_metric, tmp_path)
    assert (scores.action, scores.model, scores.fold) == ("check_metric", "demo", 2)
    assert job.run.dir == scores.output_dir / "demo_fold_2" == train.output_dir / "demo_fold_2"


def test_each_seed_is_a_run_of_its_own(tmp_path):
    jobs = make(TrainingGrid(model=("demo",), seeds=(7, 8), run="try"), place=tmp_path)
    assert [job.run.tag for job in jobs] == ["try_seed7", "try_seed8"]
    for job, seed in zip(jobs, (7, 8), strict=True):
        assert parse(job.train, tmp_path).seed == job.seed == seed
        assert parse(job.check_metric, tmp_path).tag == job.run.tag


def test_settings_are_those_of_the_plan(tmp_path):
    settings = {"n_epochs": 2, "pyramid_levels": [3, 4, 5], "hflip": False, "clip_norm": 0.5}
    (job,) = make(TrainingGrid(model=("demo",), run="own", set=settings), place=tmp_path)
    wanted: dict[str, Any] = settings | {"pyramid_levels": (3, 4, 5)}
    assert job.experiment == replace(get_experiment("demo"), **wanted)
    assert job.run.tag == "own"


def test_a_changed_experiment_is_named_after_what_was_changed(tmp_path):
    grid = TrainingGrid(model=("demo",), seeds=(7,), set={"hflip": False})
    (job,) = make(grid, place=tmp_path)
    assert job.run.tag == "hflip-False_seed7"
    assert parse(job.train, tmp_path).run == parse(job.check_metric, tmp_path).run == job.run.tag


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"img_size": 100}, "--set: img_size cannot be 100"),
        ({"imgsize": 192}, "--set 'imgsize=192': no such setting; did you mean img_size"),
    ],
)
def test_a_setting_that_is_wrong_is_refused(tmp_path, settings, match):
    with pytest.raises(InputError, match=match):
        make(TrainingGrid(model=("demo",), set=settings), place=tmp_path)


def test_the_scores_of_a_debug_run_are_made_in_its_folder(tmp_path):
    (job,) = make(TrainingGrid(model=("demo",), run="try", flags=("--debug",)), place=tmp_path)
    assert job.run.tag == parse(job.check_metric, tmp_path).tag == "try_debug"


def test_a_training_that_occurs_twice_is_one_job(tmp_path):
    grids = (
        TrainingGrid(model=("demo",), folds=(0, 1)),
        TrainingGrid(model=("demo", "resnet50_512")),
    )
    names = [job.run.name for job in make(*grids, place=tmp_path)]
    assert names == ["demo_fold_0", "demo_fold_1", "resnet50_512_fold_0"]


def test_two_trainings_of_one_name_are_refused(tmp_path):
    grids = (
        TrainingGrid(model=("demo",)),
        TrainingGrid(model=("demo",), flags=("--batch-size", "4")),
    )
    with pytest.raises(PlanError, match="demo_fold_0: two different trainings would have"):
        make(*grids, place=tmp_path)


def test_an_experiment_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such experiment; did you mean resnet50_512"):
        make(TrainingGrid(model=("resnet50_51",)), place=tmp_path)
