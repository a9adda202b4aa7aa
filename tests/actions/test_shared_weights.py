"""A checkpoint as a model to share: one file that predicts without its run, and its card."""

import hashlib
import http.server
import json
import re
import shutil
import threading
from dataclasses import asdict, replace

import numpy as np
import pytest

from src import export, train_runner
from src.experiments.checkpoints import load_checkpoint
from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS
from src.prediction.predictions import load_predictions
from tests.made_checkpoints import copy_checkpoint, rewrite_facts
from tests.made_predictions import make_sweep
from tests.paths import ROOT

PREDICT = ("--action", "generate_predictions", "--num-workers", "0")
COMMIT = "c" * 40


@pytest.fixture
def run(talkative, trained, tmp_path):
    """Return a run whose network finds boxes, with the settings of a training."""
    run = Run("demo", 0, "", tmp_path / "runs")
    shutil.copytree(talkative / run.name, run.dir)
    shutil.copy(trained.experiment_path, run.experiment_path)
    make_sweep([[0.0], [1.0]], thresholds=(0.0007,)).save(run.scores_path)
    return run


@pytest.fixture
def share(call_main, tmp_path):
    """Return a function that shares the best epoch of a run, and gives back the folder."""

    def call(run, *flags, name="shared"):
        folder = tmp_path / name
        outcome = call_main(export.main, run.dir, "--share", folder, *flags)
        assert outcome.code == 0, outcome.err
        return folder

    return call


@pytest.fixture
def predict(call_main, phantoms, tmp_path):
    """Return a function that predicts the test images, and gives back the predictions."""

    def call(*flags, name):
        images = phantoms / "stage_2_test_images"
        outcome = call_main(
            train_runner.main, *PREDICT, *flags, "--input", images, "--out", tmp_path / name
        )
        assert outcome.code == 0, outcome.err
        return next((tmp_path / name).rglob("predictions.npz"))

    return call


def arrays_of(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name != "header"}


def test_a_shared_file_finds_what_its_run_finds(run, share, predict, tmp_path):
    path = share(run) / "model.safetensors"
    by_run = predict("--model", "demo", "--output-dir", run.output_dir, name="by run")
    shutil.rmtree(run.output_dir)
    by_file = predict("--weights", path, "--output-dir", tmp_path / "empty", name="by file")
    ours, expected = arrays_of(by_file), arrays_of(by_run)
    assert len(expected["scores"]) > 3
    assert ours.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(ours[name], expected[name])
    tables = [(one.parent / "boxes.csv").read_bytes() for one in (by_file, by_run)]
    assert tables[0] == tables[1]


def test_a_shared_file_needs_no_table(run, share, predict, monkeypatch):
    path = share(run) / "model.safetensors"
    monkeypatch.delitem(EXPERIMENTS, "demo")
    assert len(load_predictions(predict("--weights", path, name="out"))) == 3


def test_a_run_whose_experiment_has_left_the_table_predicts_as_it_was_trained(
    run, predict, monkeypatch
):
    flags = ("--model", "demo", "--output-dir", run.output_dir)
    expected = arrays_of(predict(*flags, name="before"))
    monkeypatch.setitem(EXPERIMENTS, "demo", replace(EXPERIMENTS["demo"], img_size=256))
    changed = arrays_of(predict(*flags, name="changed"))
    monkeypatch.delitem(EXPERIMENTS, "demo")
    gone = arrays_of(predict(*flags, name="gone"))
    for name in expected:
        np.testing.assert_array_equal(changed[name], expected[name])
        np.testing.assert_array_equal(gone[name], expected[name])


def test_a_shared_file_brings_its_threshold(run, share, predict):
    experiment = predict("--weights", share(run) / "model.safetensors", name="out").with_name(
        "experiment.json"
    )
    postprocess = json.loads(experiment.read_text())["postprocess"]
    assert postprocess["threshold"] == 0.0007
    assert postprocess["threshold_from"] == "check_metric, epoch 1"


def test_several_files_are_the_ensemble_of_their_runs(
    run, share, predict, talkative, trained, tmp_path
):
    other = replace(run, fold=1)
    shutil.copytree(talkative / other.name, other.dir)
    content = json.loads(trained.experiment_path.read_text()) | {"fold": 1}
    other.experiment_path.write_text(json.dumps(content))
    make_sweep([[0.0], [1.0]], thresholds=(0.0009,)).save(other.scores_path)
    flags = ("--folds", "0", "1", "--model", "demo", "--output-dir", run.output_dir)
    by_runs = predict(*flags, name="by runs")
    files = [share(one, name=one.name) / "model.safetensors" for one in (run, other)]
    by_files = predict("--weights", *files, name="by files")
    expected = arrays_of(by_runs)
    for name, values in arrays_of(by_files).items():
        np.testing.assert_array_equal(values, expected[name])
    postprocess = json.loads(by_files.with_name("experiment.json").read_text())["postprocess"]
    assert postprocess["threshold"] == pytest.approx(0.0008)


def test_the_results_name_the_files_and_other_files_do_not_replace_them(
    run, share, predict, call_main, phantoms, tmp_path
):
    path = share(run) / "model.safetensors"
    found = predict("--weights", path, name="out")
    (file,) = json.loads(found.with_name("experiment.json").read_text())["weights"]
    assert file == {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    other = tmp_path / "other.safetensors"
    copy_checkpoint(path, other)
    checkpoint = load_checkpoint(other)
    replace(checkpoint, model={name: t + 1 for name, t in checkpoint.model.items()}).save(other)
    outcome = call_main(train_runner.main, *PREDICT, "--weights", other, "--input",
                        phantoms / "stage_2_test_images", "--out", tmp_path / "out")  # fmt: skip
    assert outcome.code == 2
    assert "holds what other networks found" in outcome.err


def test_the_state_of_a_training_is_no_model_to_share(trained, call_main, phantoms):
    outcome = call_main(train_runner.main, *PREDICT, "--weights", trained.last_checkpoint_path,
                        "--input", phantoms / "stage_2_test_images")  # fmt: skip
    assert (outcome.code, len(outcome.errors())) == (2, 1)
    assert "is the state of a training" in outcome.err


def test_a_file_that_does_not_tell_its_fold_is_refused(run, call_main, phantoms, tmp_path):
    old = tmp_path / "old.safetensors"
    copy_checkpoint(run.checkpoint_path(1), old, fold=None)
    outcome = call_main(train_runner.main, *PREDICT, "--weights", old,
                        "--input", phantoms / "stage_2_test_images")  # fmt: skip
    assert (outcome.code, len(outcome.errors())) == (2, 1)
    assert "did not store the fold" in outcome.err


# The card


def test_the_card_tells_what_is_known_and_what_is_not(run, share):
    card = (share(run, "--licence", "mit") / "README.md").read_text()
    assert card.startswith('---\nlicense: "mit"\n')
    assert "demo\\_fold\\_0" in card
    assert "at settings that other images chose (to be quoted) | not measured |" in card
    assert "### Subgroups\n\nnot measured" in card
    assert "| began with | random weights |" in card


def test_the_card_gives_numbers_with_intervals_and_groups(trained, share, tmp_path):
    ids = load_predictions(trained.predictions_path(0)).ids.tolist()
    table = tmp_path / "views.csv"
    rows = [f"{name},{('AP', 'PA')[i % 2]}" for i, name in enumerate(ids)]
    table.write_text("\n".join(["patientId,view", *rows]))
    card = (share(trained, "--epoch", "0", "--groups", table) / "README.md").read_text()
    assert 'license: "unknown"' in card
    assert re.search(r"images with an opacity \(global head\) \| [01]\.\d{3} \([01]\.", card)
    counts = re.findall(r"\| view A?P[A ]? ?\(small\) \| (\d+) \|", card)
    assert sum(map(int, counts)) == len(ids)


def test_what_a_file_holds_does_not_break_the_card(run, share):
    content = json.loads(run.experiment_path.read_text())
    content["n_train"] = "5 |\n# <script>"
    run.experiment_path.write_text(json.dumps(content))
    card = (share(run) / "README.md").read_text()
    assert "| training images | 5 \\| \\# \\<script\\> |" in card


def test_nothing_is_written_over(run, share, call_main):
    folder = share(run)
    before = (folder / "README.md").read_bytes()
    outcome = call_main(export.main, run.dir, "--share", folder)
    assert (outcome.code, len(outcome.errors())) == (2, 1)
    assert (folder / "README.md").read_bytes() == before


@pytest.mark.parametrize(
    "flags",
    [
        ("--out", "model.onnx"),
        ("--nms-iou", "0.9"),
        ("--without-nms",),
        ("--max-boxes", "5"),
        ("--check-images", "images"),
        ("--tolerance", "0"),
    ],
)
def test_flags_of_the_other_export_are_refused(call_main, flags):
    outcome = call_main(export.main, "output/demo_fold_0", "--share", "shared", *flags)
    assert outcome.code == 2
    (line,) = outcome.errors()
    assert line.startswith(f"error: --share cannot be combined with {flags[0]}, which is of an")


# The hub


@pytest.fixture
def hub(run, share):
    """Serve a shared file as the hub does; return the server's address."""
    content = (share(run) / "model.safetensors").read_bytes()
    digest = hashlib.sha256(content).hexdigest()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            known = self.path.split("?")[0] in (
                f"/owner/name/resolve/{revision}/model.safetensors" for revision in ("v1", COMMIT)
            )
            self.send_response(200 if known else 404)
            if known:
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{digest}"')
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return known

        def do_GET(self):
            if self.do_HEAD():
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_weights_come_from_the_hub_by_revision(hub, run_command, phantoms, tmp_path):
    environment = {"HF_ENDPOINT": hub, "PNEUMONIA_WEIGHTS_DIR": str(tmp_path / "weights")}
    images = phantoms / "stage_2_test_images"
    command = (ROOT / "src/train_runner.py", *PREDICT, "--input", images, "--output-dir", tmp_path)
    run_command(*command, "--weights", "hf:owner/name@v1", variables=environment)
    assert (tmp_path / "weights" / "hf--owner--name--v1.safetensors").is_file()
    assert (tmp_path / "by_weights" / "demo_fold_0").is_dir()
    run_command(*command, "--weights", f"hf:owner/name@{COMMIT}", variables=environment)
    environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens; that commit is there
    run_command(*command, "--weights", f"hf:owner/name@{COMMIT}", variables=environment)
    outcome = run_command(
        *command, "--weights", "hf:owner/name@v1", variables=environment, ok=False
    )
    assert (outcome.code, len(outcome.errors())) == (2, 1)
    assert "hf:owner/name@v1: cannot be downloaded" in outcome.err


@pytest.mark.parametrize("place", ["hf:", "hf:name", "hf:a/b/c", "hf:a/b@", "hf:a/../b"])
def test_a_place_that_is_none_on_the_hub_is_refused(call_main, phantoms, place):
    outcome = call_main(train_runner.main, *PREDICT, "--weights", place,
                        "--input", phantoms / "stage_2_test_images")  # fmt: skip
    assert (outcome.code, len(outcome.errors())) == (2, 1)
    assert "hf:owner/name or hf:owner/name@revision would be right" in outcome.err


# Files from anywhere


def change_facts(path, changes):
    rewrite_facts(path, lambda facts: facts | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tag": "/../../x"}, "tag cannot be '/../../x'"),
        ({"experiment": "a b"}, "experiment cannot be 'a b'"),
        ({"fold": 20}, "fold cannot be 20; it must be a fold from 0 to 19"),
        ({"epoch": 10**12}, "epoch cannot be 1000000000000"),
        ({"epoch": -1}, "is the state of a training"),
        ({"shared": 5}, "shared cannot be 5"),
    ],
)
def test_a_file_whose_facts_are_made_up_is_refused(
    run, share, call_main, phantoms, tmp_path, changes, words
):
    path = share(run) / "model.safetensors"
    change_facts(path, changes)
    outcome = call_main(train_runner.main, *PREDICT, "--weights", path, "--output-dir",
                        tmp_path / "out", "--input", phantoms / "stage_2_test_images")  # fmt: skip
    assert (outcome.code, len(outcome.errors())) == (2, 1)
    assert words in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "best", [{}, {"epoch": 1}, {"gate": "no"}, {"threshold": float("nan")}, {"nms": 2.0}]
)
def test_a_best_setting_that_is_made_up_is_refused(run, share, call_main, phantoms, best):
    path = share(run) / "model.safetensors"
    shared = asdict(load_checkpoint(path).facts)["shared"]
    best = {**shared["best"], **best} if len(best) == 1 and "epoch" not in best else best
    change_facts(path, {"shared": {**shared, "best": best}})
    outcome = call_main(train_runner.main, *PREDICT, "--weights", path,
                        "--input", phantoms / "stage_2_test_images")  # fmt: skip
    assert (outcome.code, len(outcome.errors())) == (2, 1)
    assert "its best setting cannot be used" in outcome.err
