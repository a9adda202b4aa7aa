"""Folders whose names are bytes that are no text, or that a library takes for something else."""

import shutil
from pathlib import Path

import pytest

from src import compare, scores, submission, train_runner
from src.experiments.runs import Run
from src.training.run_files import TrainingFiles
from src.visualizations import (
    eda,
    plot_detections,
    plot_global_head,
    plot_metrics,
    plot_numbers,
    plot_sweep,
    plot_val_loss,
    report,
    runs_index,
)
from tests.conftest import TRAINING
from tests.histories import repeatable_of

NO_TEXT = "\udcff\n$a_{$"  # a byte that begins no character, a new line, half a formula
TAKEN_FOR_SOMETHING = ["a$x_{$b", "_hidden", "<b>&'\"", "{x} %s", "-flag", "\x1b[31m"]


@pytest.fixture(scope="module")
def odd(phantoms, tmp_path_factory):
    """Return data and output folder of such a name; a training there is killed in epoch 1."""
    place = tmp_path_factory.mktemp("odd")
    data, output = place / f"data {NO_TEXT}", place / f"output {NO_TEXT}"
    shutil.copytree(phantoms, data)
    return data, output


def train(call_main, odd, *flags):
    data, output = odd
    folders = ("--data-dir", data, "--output-dir", output)
    return call_main(train_runner.main, *TRAINING, *folders, "--num-workers", "0", *flags)


@pytest.fixture(scope="module")
def run(odd):
    return Run("demo", 0, "", odd[1])


def test_a_training_works_and_resumes_under_a_name_that_is_no_text(
    odd, run, trained, call_main, monkeypatch
):
    write_epoch = TrainingFiles.write_epoch

    def stop_in_epoch_1(files, model, predictions, history, source):
        if len(history) == 2:
            raise KeyboardInterrupt
        write_epoch(files, model, predictions, history, source)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingFiles, "write_epoch", stop_in_epoch_1)
        assert train(call_main, odd).code == 130
    assert run.last_checkpoint_path.is_file()
    outcome = train(call_main, odd, "--resume")
    assert outcome.code == 0, outcome.err
    assert outcome.out.endswith(f"output \\udcff\n$a_{{$/{run.name}\n")
    assert repeatable_of(run) == repeatable_of(trained)
    assert list(run.tensorboard_dir.iterdir())


@pytest.mark.parametrize(
    "flags",
    [
        ("check_metric",),
        ("generate_predictions", "--split", "test"),
        ("generate_predictions", "--input", "{data}/stage_2_test_images", "--overlays"),
        ("test_model", "--num-images", "2"),
        ("check_data",),
        ("train", "--run", "more", "--from-epoch", "1", "--weights_dir", "{more}"),
    ],
    ids=lambda flags: " ".join(flags),
)
def test_what_follows_a_training_works_there(odd, run, call_main, tmp_path, flags):
    more = tmp_path / NO_TEXT
    shutil.copytree(run.dir, more / "demo_more_fold_0")
    words = [word.format(data=odd[0], more=more) for word in flags]
    outcome = train(call_main, odd, "--action", *words) if flags[0] == "train" else call_main(
        train_runner.main, "--model", "demo", "--num-workers", "0", "--data-dir", odd[0],
        "--output-dir", odd[1], "--action", *words,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err


SHOWING = {
    "scores": (scores.main, ("{run}", "--nms", "0.05", "--shrinks", "1")),
    "compare": (compare.main, ("{run}", "{other}", "--draws", "100", "--out", "{run}/compared")),
    "write": (submission.main, ("write", "{run}/predictions/001.npz", "--threshold", "0.3",
                                "--out", "{run}/submission.csv")),
    "fuse": (submission.main, ("fuse", "{run}/predictions/000.npz", "{run}/predictions/001.npz",
                               "--method", "nms", "--out", "{run}/fused.npz")),
    "metrics": (plot_metrics.main, ("{run}", "{other}", "--out", "{run}/a.png")),
    "sweep": (plot_sweep.main, ("{run}", "--out", "{run}/a.png")),
    "detections": (plot_detections.main, ("{run}", "--threshold", "-1", "--out", "{run}/a.png")),
    "global_head": (plot_global_head.main, ("{run}", "--out", "{run}/a.png")),
    "numbers": (plot_numbers.main, ("{run}", "{other}", "--out", "{run}/a.png")),
    "val_loss": (plot_val_loss.main, ("{run}", "{other}", "--out", "{run}/a.png")),
    "index": (runs_index.main, ("{run}", "{other}", "--out", "{run}/index")),
    "report": (report.main, ("{run}", "--data-dir", "{data}", "--num-images", "1")),
}  # fmt: skip


@pytest.mark.parametrize("name", [NO_TEXT, *TAKEN_FOR_SOMETHING])
def test_what_shows_a_run_shows_any_name(phantoms, trained, call_main, tmp_path, name):
    run_dir = tmp_path / name
    shutil.copytree(trained.dir, run_dir)
    metric = ("--action", "check_metric", "--model", "demo", "--output-dir", trained.output_dir)
    if not trained.scores_path.exists():
        assert call_main(train_runner.main, *metric).code == 0
    shutil.copy(trained.scores_path, run_dir)
    paths = {"run": run_dir, "other": trained.dir, "data": phantoms}
    for what, (main, words) in SHOWING.items():
        outcome = call_main(main, *(word.format(**paths) for word in words))
        assert outcome.code == 0, f"{what}: {outcome.err}"
        assert "warning" not in outcome.err
    for page in (run_dir / "report.html", run_dir / "index" / "index.html"):
        assert "<b>&'" not in page.read_text(encoding="utf-8")


def test_a_patient_may_be_called_like_a_formula(phantoms, call_main, tmp_path):
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    images = data / "stage_2_train_images"
    old = sorted(path.stem for path in images.iterdir())
    for path in data.glob("stage_2_*.csv"):
        text = path.read_text()
        for number, patient in enumerate(old):
            text = text.replace(patient, f"p{number}$x_{{$")
        path.write_text(text)
    for number, patient in enumerate(old):
        (images / f"{patient}.dcm").rename(images / f"p{number}$x_{{$.dcm")
    outcome = call_main(eda.main, "--data-dir", data, "--out", tmp_path / "pics")
    assert outcome.code == 0, outcome.err
