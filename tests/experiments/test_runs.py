import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from src.experiments.runs import Run, check_owner, ensemble_run, load_run, runs_at
from src.system.errors import InputError
from src.system.files import write_json

RUN = Run("resnet50_512", 2, "", Path("output"))


def test_run_names_its_folder_by_model_tag_and_fold():
    assert RUN.name == "resnet50_512_fold_2"
    assert Run("resnet50_512", 0, "long", Path()).name == "resnet50_512_long_fold_0"


def test_run_keeps_a_slash_out_of_its_folder():
    assert Run("timm/resnet50", 0, "", Path("output")).dir == Path("output/timm-resnet50_fold_0")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (RUN.experiment_path, "experiment.json"),
        (RUN.history_path, "history.csv"),
        (RUN.last_checkpoint_path, "checkpoints/last.safetensors"),
        (RUN.checkpoint_path(7), "checkpoints/007.safetensors"),
        (RUN.predictions_path(12), "predictions/012.npz"),
        (RUN.test_predictions_path(12), "predictions/test_012.npz"),
        (RUN.tensorboard_dir, "tensorboard"),
        (RUN.scores_path, "scores.npz"),
        (RUN.pics_dir, "pics"),
        (RUN.submission_path("test", 3), "submission_test_003.csv"),
    ],
)
def test_run_lays_its_files_where_the_design_says(path, expected):
    assert path == Path("output/resnet50_512_fold_2") / expected


def test_an_ensemble_is_a_run_of_its_models_with_a_tag_of_its_own():
    folds = [Run("resnet50_512", fold, "", Path("output")) for fold in range(4)]
    assert ensemble_run(folds).dir == Path("output/resnet50_512_ensemble_fold_0")
    models = [Run(model, fold, "long", Path("output")) for model in ("timm/x", "y") for fold in
              (2, 3)]  # fmt: skip
    assert ensemble_run(models) == Run("timm/x+y", 2, "long_ensemble", Path("output"))
    assert ensemble_run(models).common_name == "timm-x+y_long_ensemble"


@pytest.mark.parametrize(
    ("run", "owner", "words"),
    [
        (Run("a", 0, "b", Path()), {"model": "a_b", "tag": ""}, "belongs to --model a_b; "),
        (Run("a_b", 0, "", Path()), {"model": "a", "tag": "b"}, "to --model a --run b; "),
        (Run("timm-x", 0, "", Path()), {"model": "timm/x", "tag": ""}, "to --model timm/x; "),
    ],
)
def test_the_folder_of_another_run_of_the_same_name_is_refused(tmp_path, run, owner, words):
    run = replace(run, output_dir=tmp_path)
    write_json(run.experiment_path, owner)
    with pytest.raises(InputError, match=re.escape(f"{run.dir}: ")) as caught:
        check_owner(run)
    assert words in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"model": "a", "tag": "b"}'])
def test_a_folder_of_its_own_or_of_nobody_is_taken(tmp_path, content):
    run = Run("a", 0, "b", tmp_path)
    if content is not None:
        run.dir.mkdir()
        run.experiment_path.write_text(content)
    check_owner(run)


def test_run_lists_the_epochs_it_holds(tmp_path):
    run = Run("demo", 0, "", tmp_path)
    assert run.epochs_with_checkpoint() == []
    others = ("last.pt", "last.safetensors", ".003.tmp.pt", ".003.tmp.safetensors", "004.npz",
              "12.pt", "13.safetensors", ".tmpAbc123")  # fmt: skip
    epochs = ("010.pt", "010.safetensors", "002.pt", "1000.safetensors", "001.safetensors")
    run.checkpoints_dir.mkdir(parents=True)
    for name in (*epochs, *others):
        (run.checkpoints_dir / name).touch()
    assert run.epochs_with_checkpoint() == [1, 2, 10, 1000]


def test_run_finds_checkpoints_of_both_forms_todays_first(tmp_path):
    run = Run("demo", 0, "", tmp_path)
    assert (run.find_checkpoint(1), run.find_last_checkpoint()) == (None, None)
    run.checkpoints_dir.mkdir(parents=True)
    for name in ("001.pt", "last.pt"):
        (run.checkpoints_dir / name).touch()
    assert run.find_checkpoint(1) == run.checkpoints_dir / "001.pt"
    assert run.find_last_checkpoint() == run.checkpoints_dir / "last.pt"
    run.checkpoint_path(1).touch()
    run.last_checkpoint_path.touch()
    assert run.find_checkpoint(1) == run.checkpoint_path(1)
    assert run.find_last_checkpoint() == run.last_checkpoint_path


def test_run_tells_predictions_of_the_test_images_apart(tmp_path):
    run = Run("demo", 0, "", tmp_path)
    run.predictions_path(1).parent.mkdir(parents=True)
    run.predictions_path(1).touch()
    run.test_predictions_path(2).touch()
    assert run.epochs_with_predictions() == [1]


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a run that was trained."""
    run_dir = tmp_path / "timm-resnet50_long_fold_3"
    run_dir.mkdir()
    content = {"model": "timm/resnet50", "fold": 3, "tag": "long"}
    (run_dir / "experiment.json").write_text(json.dumps(content))
    return run_dir


def test_load_run_tells_which_run_a_folder_holds(folder):
    assert load_run(folder) == Run("timm/resnet50", 3, "long", folder.parent)


def test_load_run_follows_links(folder, tmp_path):
    (tmp_path / "latest").symlink_to(folder)
    assert load_run(tmp_path / "latest") == load_run(folder)


def test_load_run_refuses_a_folder_that_was_renamed(folder):
    renamed = folder.rename(folder.with_name("my best"))
    with pytest.raises(InputError, match="my best: holds the run timm-resnet50_long_fold_3"):
        load_run(renamed)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "no such file"),
        ("{", "not a readable JSON file"),
        ("[]", "not the settings of a run"),
        ('{"model": "demo", "tag": ""}', "does not tell model, fold and tag"),
        ('{"model": "demo", "tag": "", "fold": []}', "does not tell model, fold and tag"),
    ],
)
def test_load_run_names_what_is_wrong(folder, content, cause):
    path = folder / "experiment.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=f"experiment.json: {cause}"):
        load_run(folder)


def test_a_name_without_a_fold_stands_for_the_folders_of_all_folds(tmp_path):
    for name in ("a_fold_10", "a_fold_2", "ab_fold_1", "a_x_fold_0", "a_fold_2b", "a+b_fold_0"):
        (tmp_path / name).mkdir()
    assert runs_at(tmp_path / "a") == [tmp_path / "a_fold_2", tmp_path / "a_fold_10"]
    assert runs_at(tmp_path / "a+b") == [tmp_path / "a+b_fold_0"]
    for name in ("a_fold_2", "none", "none/a"):
        assert runs_at(tmp_path / name) == [tmp_path / name]
    (tmp_path / "a" / "predictions").mkdir(parents=True)
    assert runs_at(tmp_path / "a") == [tmp_path / "a"]
