"""Each mistake of a user ends with one line, exit code 2, and everything as it was."""

import csv
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from scripts import baseline, benchmark
from src import scores, train_runner
from src.datasets import folds
from src.experiments.runs import Run
from src.visualizations import plot_metrics, plot_val_loss
from tests.conftest import TRAINING
from tests.hostile_files import Exploit
from tests.paths import ROOT

LABELS = "stage_2_train_labels.csv"
CLASSES = "stage_2_detailed_class_info.csv"
QUICK = ("--model", "demo", "--num-workers", "0")


@pytest.fixture
def data(phantoms, tmp_path):
    """Return a copy of the phantoms whose files may be broken."""
    return Path(shutil.copytree(phantoms, tmp_path / "data"))


@pytest.fixture
def output(trained, tmp_path):
    """Return an output folder with the trained run; its weights are shared, so not to be broken."""
    run = Run("demo", 0, "", tmp_path / "output")
    for path in (trained.checkpoint_path(1), trained.last_checkpoint_path,
                 trained.predictions_path(1), trained.history_path):  # fmt: skip
        target = run.dir / path.relative_to(trained.dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target) if path.suffix == ".safetensors" else shutil.copy2(path, target)
    return run.output_dir


@pytest.fixture
def refused(call_main, listing):
    """Return a function that runs a command and holds what it must not do against it."""

    def call(main, *arguments, folders, words):
        before = listing(*folders)
        outcome = call_main(main, *arguments)
        assert outcome.code == 2, outcome
        (line,) = outcome.errors()
        assert line.startswith("error: ")
        assert "Traceback" not in outcome.err
        for word in words:
            assert word in line
        assert listing(*folders) == before

    return call


def edit_rows(path, change):
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def set_cell(column, value, *, with_box=True):
    """Put `value` into the first row with (or without) a box."""

    def change(rows):
        row = next(row for row in rows[1:] if (row[-1] == "1") == with_box)
        row[rows[0].index(column)] = value

    return change


def drop_column(name):
    def change(rows):
        place = rows[0].index(name)
        for row in rows:
            del row[place]

    return change


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "lite0_192"], ["--action train takes one --model, not 2"]),
        (["--action", "dance"], ["dance", "check_metric"]),
        (["--fold", "20"], ["--fold: 20", "0 and 19"]),
        (["--fold", "4"], ["fold 4 has no images; there are [0, 1, 2, 3]"]),
        (["--fold", "-1"], ["--fold"]),
        (["--fold", "first"], ["first"]),
        (["--epoch", "-1", "--action", "check_metric"], ["-1"]),
        (["--num-epochs", "0"], ["--num-epochs"]),
        (["--batch-size", "none"], ["none"]),
        (["--learning-rate", "-1"], ["--learning-rate"]),
        (["--run", "a/b"], ["a/b"]),
        (["--debug", "perhaps"], ["perhaps"]),
        (["--device", "cuda:77"], ["cuda:77"]),
        (["--mod", "demo"], ["--mod"]),
        (["--nms", "2"], ["--nms"]),
        (["--action", "test_model", "--tta", "hflip"], ["--action test_model takes no --tta"]),
        (["--action", "test_model", "--folds", "0"], ["takes no --folds; train and generate_pred"]),
        (["--set", "img_sze=3"], ["no such setting; did you mean img_size"]),
        (["--set", "img_size=200"], ["--set: img_size cannot be 200; it must be a multiple of 32"]),
        (
            ["--batch-size", "2", "--set", "batch_size=3"],
            ["--batch-size cannot be combined with --set batch_size"],
        ),
        (["--epoch", "1"], ["--action train takes no --epoch; check_metric and gen"]),
        (["--overwrite"], ["--action train takes no --overwrite; generate_predictions does"]),
        (["--weights_dir", "."], ["--weights_dir needs --from-epoch"]),
        (["--action", "check_metric", "--threshold", "1"], ["takes no --threshold; generate_pred"]),
        (["--action", "check_metric", "--seed", "1"], ["takes no --seed; train does"]),
        (
            ["--action", "check_metric", "--epoch", "1", "--from-epoch", "1"],
            ["--epoch cannot be combined with --from-epoch"],
        ),
        (
            ["--action", "generate_predictions", "--folds", "1", "--fold", "0"],
            ["--folds cannot be combined with --fold"],
        ),
        (
            ["--action", "generate_predictions", "--input", "x", "--split", "test"],
            ["--input cannot be combined with --split"],
        ),
        (["--action", "generate_predictions", "--skip-unreadable"], ["needs --input"]),
        (
            ["--action", "generate_predictions", "--folds", "0", "--epoch", "1", "--k", "1"],
            ["--k needs an ensemble"],
        ),
        (["--split", "train"], ["train"]),
        (["--seed", "1.5"], ["1.5"]),
    ],
)
def test_a_wrong_flag_is_refused(refused, data, output, flags, words):
    arguments = (*QUICK, "--data-dir", data, "--output-dir", output, *flags)
    refused(train_runner.main, *arguments, folders=(data, output), words=words)


@pytest.mark.parametrize("flag", ["--seed", "--learning-rate", "--checkpoint-minutes"])
def test_an_error_of_a_flag_speaks_of_the_flag_alone(call_main, flag):
    outcome = call_main(train_runner.main, flag, "much")
    assert outcome.err.startswith(f"error: argument {flag}: 'much' is not a ")


def test_an_unknown_experiment_is_refused(refused, data, output):
    arguments = ("--model", "resnet50-512", "--data-dir", data, "--output-dir", output)
    words = ["resnet50-512", "did you mean"]
    refused(train_runner.main, *arguments, folders=(data, output), words=words)


@pytest.mark.parametrize("action", ["check_metric", "generate_predictions", "test_model"])
def test_an_unknown_epoch_is_refused(refused, data, output, action):
    arguments = (*QUICK, "--data-dir", data, "--output-dir", output, "--action", action)
    folders = (data, output)
    more = ["--overwrite"] if action == "generate_predictions" else []
    refused(train_runner.main, *arguments, "--epoch", "9", *more, folders=folders, words=["9"])
    refused(train_runner.main, *arguments, "--from-epoch", "5", folders=folders, words=["5"])


@pytest.mark.parametrize("action", ["check_metric", "generate_predictions", "test_model"])
def test_a_run_that_was_not_trained_is_refused(refused, data, tmp_path, action):
    output = tmp_path / "output"
    output.mkdir()
    arguments = (*QUICK, "--data-dir", data, "--output-dir", output, "--action", action)
    words = [str(output / "demo_fold_0")]
    refused(train_runner.main, *arguments, folders=(data, output), words=words)


@pytest.mark.parametrize("action", ["train", "check_metric", "generate_predictions", "test_model"])
def test_the_folder_of_another_run_is_refused(refused, data, output, action):
    owner = Run("demo", 0, "", output)
    owner.experiment_path.write_text('{"model": "dem", "tag": "o"}')
    arguments = (*QUICK, "--data-dir", data, "--output-dir", output, "--action", action)
    words = [str(owner.dir), "belongs to --model dem --run o", "another --run"]
    refused(train_runner.main, *arguments, folders=(data, output), words=words)


def test_training_from_an_unknown_epoch_is_refused(refused, data, output):
    arguments = (*QUICK, "--data-dir", data, "--output-dir", output, "--from-epoch", "9")
    words = ["008.safetensors", "no such checkpoint"]
    refused(train_runner.main, *arguments, folders=(data, output), words=words)


def test_training_over_an_older_run_is_refused(refused, data, output):
    arguments = (*TRAINING, "--num-workers", "0", "--data-dir", data, "--output-dir", output)
    refused(train_runner.main, *arguments, folders=(data, output), words=["--resume"])


@pytest.mark.parametrize("action", ["train", "generate_predictions", "test_model"])
def test_a_missing_data_folder_is_refused(refused, output, tmp_path, action):
    flags = ["--action", action, "--data-dir", tmp_path / "nowhere"]
    words = ["nowhere", "no such data folder"]
    arguments = (*QUICK, *flags, "--output-dir", output)
    refused(train_runner.main, *arguments, folders=(tmp_path,), words=words)


def remove_image(data):
    next((data / "stage_2_train_images").iterdir()).unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: (data / LABELS).unlink(), [LABELS, "no such file"]),
        (lambda data: (data / LABELS).write_bytes(b""), [LABELS]),
        (lambda data: (data / LABELS).write_bytes(bytes(range(256))), [LABELS]),
        (lambda data: edit_rows(data / LABELS, drop_column("width")), [LABELS, "no column width"]),
        (lambda data: edit_rows(data / CLASSES, drop_column("class")), [CLASSES, "column class"]),
        (lambda data: edit_rows(data / LABELS, set_cell("x", "left")), ["line", "'left'"]),
        (lambda data: edit_rows(data / LABELS, set_cell("width", "-5")), ["line", "not positive"]),
        (lambda data: edit_rows(data / LABELS, set_cell("x", "1020")), ["outside the image"]),
        (lambda data: edit_rows(data / LABELS, set_cell("Target", "2")), ["Target '2'"]),
        (lambda data: edit_rows(data / LABELS, set_cell("Target", "0")), ["Target is 0"]),
        (lambda data: edit_rows(data / LABELS, set_cell("height", "nan")), ["height 'nan'"]),
        (lambda data: edit_rows(data / CLASSES, lambda rows: rows[1].__setitem__(1, "Ill")),
         ["class 'Ill' does not exist"]),
        (lambda data: shutil.rmtree(data / "stage_2_train_images"), ["no such folder of images"]),
        (remove_image, [".dcm", "no such file"]),
        (lambda data: (data / "folds.csv").write_text("patientId,fold\na,b\n"), ["folds.csv"]),
        (lambda data: (data / "folds.csv").write_text("patientId,fold\na,1\n"), ["no fold"]),
    ],
)  # fmt: skip
def test_wrong_labels_are_refused(refused, data, output, spoil, words):
    spoil(data)
    flags = ("--run", "new", "--data-dir", data, "--output-dir", output)
    refused(train_runner.main, *QUICK, *flags, folders=(data, output), words=words)


@pytest.mark.parametrize(("main", "command"), [(baseline.main, []), (benchmark.main, ["metric"])])
def test_a_command_says_how_to_get_a_data_folder(refused, main, command, tmp_path):
    words = ["none: no such data folder", "scripts/dataset_download.sh"]
    refused(main, *command, "--data-dir", tmp_path / "none", folders=(tmp_path,), words=words)


def no_dicom(path):
    path.write_text("a text")


def truncate(path):
    path.write_bytes(path.read_bytes()[:5000])


def without_pixels(path):
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)


BROKEN_IMAGES = pytest.mark.parametrize("spoil", [no_dicom, truncate, without_pixels])


@BROKEN_IMAGES
def test_a_broken_test_image_is_refused(refused, data, output, spoil):
    path = sorted((data / "stage_2_test_images").iterdir())[-1]
    spoil(path)
    flags = ("--action", "generate_predictions", "--split", "test", "--epoch", "1")
    arguments = (*QUICK, *flags, "--data-dir", data, "--output-dir", output)
    refused(train_runner.main, *arguments, folders=(data, output), words=[path.name])


@BROKEN_IMAGES
def test_a_broken_training_image_is_refused_in_a_worker_too(
    call_main, data, output, listing, spoil
):
    for path in (data / "stage_2_train_images").iterdir():
        spoil(path)
    before = listing(data, output / "demo_fold_0")
    flags = ("--model", "demo", "--run", "new", "--num-workers", "1")
    outcome = call_main(train_runner.main, *flags, "--data-dir", data, "--output-dir", output)
    assert outcome.code == 2
    (line,) = outcome.errors()
    assert line.startswith(f"error: {data}")
    assert listing(data, output / "demo_fold_0") == before
    saved = {path.name for path in (output / "demo_new_fold_0").rglob("*.safetensors")}
    assert saved <= {"last.safetensors"}, "the state before the first step, and no epoch's weights"


def test_a_folder_without_images_is_refused(refused, data, output):
    for path in (data / "stage_2_test_images").iterdir():
        path.rename(path.with_name(f".{path.name}"))
    flags = ("--action", "generate_predictions", "--split", "test", "--epoch", "1")
    arguments = (*QUICK, *flags, "--data-dir", data, "--output-dir", output)
    refused(train_runner.main, *arguments, folders=(data, output), words=["holds no image files"])


def test_test_images_that_the_sample_submission_does_not_list_are_refused(
    refused, data, output, tmp_path
):
    source = next((data / "stage_2_test_images").iterdir())
    shutil.copy(source, source.with_name("another.dcm"))
    flags = ("--action", "generate_predictions", "--split", "test", "--epoch", "1")
    arguments = (*QUICK, *flags, "--data-dir", data, "--output-dir", output)
    refused(train_runner.main, *arguments, folders=(data,), words=["another"])
    assert not list(output.rglob("submission*"))


def put_checkpoint(output, content):
    """Leave something under the name of epoch 1's weights."""
    path = output / "demo_fold_0" / "checkpoints" / "001.safetensors"
    path.unlink()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("action", ["generate_predictions", "test_model"])
def test_a_checkpoint_of_another_experiment_is_refused(refused, data, output, action):
    other = Run("resnet18_256_scratch", 0, "", output)
    other.checkpoint_path(1).parent.mkdir(parents=True)
    os.link(Run("demo", 0, "", output).checkpoint_path(1), other.checkpoint_path(1))
    flags = ("--action", action, "--model", other.model, "--epoch", "1", "--num-workers", "0")
    arguments = (*flags, "--data-dir", data, "--output-dir", output)
    words = ["001.safetensors", "belongs to experiment 'demo'"]
    refused(train_runner.main, *arguments, folders=(data, output), words=words)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"patientId,x\n", b"PK\x03\x04 no zip"])
def test_a_checkpoint_that_is_something_else_is_refused(refused, data, output, content):
    path = put_checkpoint(output, content)
    flags = ("--action", "test_model", "--epoch", "1")
    arguments = (*QUICK, *flags, "--data-dir", data, "--output-dir", output)
    refused(train_runner.main, *arguments, folders=(data, output), words=[path.name])


def test_code_in_a_checkpoint_does_not_run(refused, data, output, tmp_path):
    put_checkpoint(output, pickle.dumps(Exploit(tmp_path / "touched")))
    flags = ("--action", "test_model", "--epoch", "1")
    arguments = (*QUICK, *flags, "--data-dir", data, "--output-dir", output)
    refused(train_runner.main, *arguments, folders=(data, output), words=["001.safetensors"])
    assert not (tmp_path / "touched").exists()


def test_resume_with_another_seed_is_refused(refused, data, output):
    flags = ("--resume", "--seed", "2", "--num-workers", "0")
    arguments = (*TRAINING, *flags, "--data-dir", data, "--output-dir", output)
    words = ["last.safetensors", "seed", "now it is 2"]
    refused(train_runner.main, *arguments, folders=(data, output), words=words)


@pytest.mark.parametrize("action", ["check_metric", "generate_predictions"])
@pytest.mark.parametrize("kind", ["text", "npz", "npy", "truncated"])
def test_predictions_that_are_something_else_are_refused(
    refused, data, output, tmp_path, action, kind
):
    path = output / "demo_fold_0" / "predictions" / "001.npz"
    np.savez(tmp_path / "npz", scores=np.zeros(3))
    np.save(tmp_path / "npy", np.zeros(3))
    contents = {
        "text": b"nothing",
        "npz": (tmp_path / "npz.npz").read_bytes(),
        "npy": (tmp_path / "npy.npy").read_bytes(),
        "truncated": path.read_bytes()[:900],
    }
    path.write_bytes(contents[kind])
    arguments = (*QUICK, "--action", action, "--epoch", "1", "--data-dir", data)
    words = ["001.npz", "not a predictions file"]
    refused(
        train_runner.main, *arguments, "--output-dir", output, folders=(data, output), words=words
    )


def test_predictions_of_other_images_are_not_taken_for_ones_own(refused, data, output):
    (data / "folds.csv").write_text(
        "patientId,fold\n"
        + "".join(f"{path.stem},{i % 4}\n" for i, path in
                  enumerate(sorted((data / "stage_2_train_images").iterdir())))
    )  # fmt: skip
    arguments = (*QUICK, "--action", "generate_predictions", "--epoch", "1", "--data-dir", data)
    words = ["is of other images"]
    refused(
        train_runner.main, *arguments, "--output-dir", output, folders=(data, output), words=words
    )


@pytest.mark.parametrize("action", ["train", "check_metric", "generate_predictions"])
def test_an_output_folder_that_cannot_be_written_is_refused(refused, data, tmp_path, action):
    file = tmp_path / "file"
    file.write_text("in the way")
    arguments = (*QUICK, "--action", action, "--data-dir", data, "--output-dir", file)
    refused(train_runner.main, *arguments, folders=(tmp_path,), words=["file"])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_an_output_folder_on_a_file_system_without_rights_is_refused(refused, data):
    arguments = (*QUICK, "--data-dir", data, "--output-dir", "/proc/output")
    refused(train_runner.main, *arguments, folders=(data,), words=["/proc/output"])


@pytest.mark.parametrize("main", [plot_metrics.main, plot_val_loss.main, scores.main])
def test_a_plot_or_sweep_of_nothing_is_refused(refused, tmp_path, main):
    (tmp_path / "run").mkdir()
    refused(main, tmp_path / "run", folders=(tmp_path,), words=[str(tmp_path / "run"), "--action"])


def test_a_plot_of_a_file_that_is_something_else_is_refused(refused, output, tmp_path):
    run_dir = output / "demo_fold_0"
    (run_dir / "scores.npz").write_text("text")
    (run_dir / "history.csv").write_text("epoch,valid_regression\n0,low\n")
    out = ("--out", tmp_path / "plot.png")
    refused(plot_metrics.main, run_dir, *out, folders=(tmp_path,), words=["scores.npz"])
    refused(plot_val_loss.main, run_dir, *out, folders=(tmp_path,), words=["history.csv"])


@pytest.mark.parametrize("name", ["", "plot.jpg"])
def test_a_plot_under_a_name_that_is_no_pictures_is_refused(refused, output, tmp_path, name):
    out = tmp_path / name
    refused(plot_val_loss.main, output / "demo_fold_0", "--out", out, folders=(tmp_path,),
            words=[f"{out}: not the name of a picture"])  # fmt: skip


def test_folds_are_not_written_over(refused, data):
    (data / "folds.csv").write_text("patientId,fold\na,1\n")
    refused(folds.main, "--data-dir", data, folders=(data,), words=["is there already"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "nothing"], "nothing"),
        (["--action", "nothing"], "nothing"),
        (["--model", "demo", "--data-dir", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_on_a_real_command_line_ends_with_one_line(run_command, tmp_path, flags, words):
    runner = ROOT / "src" / "train_runner.py"
    outcome = run_command(runner, *flags, "--output-dir", tmp_path / "output", ok=False)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("error: ")
    assert words in outcome.err
    assert not list(tmp_path.iterdir())
