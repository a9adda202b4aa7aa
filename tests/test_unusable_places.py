"""Every path that a command takes may lead to what cannot be used: then it says so in one line."""

import ast
import json
import signal
from contextlib import contextmanager
from importlib import import_module

import onnx
import pytest

from scripts.predict_onnx import FACTS
from src.prediction.predictions import load_predictions
from src.submission import main as submission_main
from src.system.files import write_json
from tests.conftest import run_main
from tests.paths import ROOT
from tests.test_architecture import COMMANDS
from tests.unusable_places import NAME, PLACES, denied_places

SECONDS = 100  # for a refusal, of a machine with much else to do

RUNNER = "src.train_runner --model demo --num-workers 0 --device cpu --action"
OTHER = "--data-dir {data} --output-dir {output}"
LABELS = "{data}/stage_2_test_labels.csv"

TAKES_A_FILE = "scripts.import_labels {coco} --out {new}/data --images {bad}"  # as a folder of one

# What a command is given in place of {bad}. It reads that, or looks for something below it.
READ = [
    f"{RUNNER} train --output-dir {{new}} --data-dir {{bad}}",
    f"{RUNNER} generate_predictions --output-dir {{output}} --data-dir {{bad}}",
    f"{RUNNER} generate_predictions --output-dir {{output}} --split test --data-dir {{bad}}",
    f"{RUNNER} test_model --output-dir {{output}} --data-dir {{bad}}",
    f"{RUNNER} check_data --output-dir {{new}} --data-dir {{bad}}",
    f"{RUNNER} check_metric --output-dir {{bad}}",
    f"{RUNNER} generate_predictions --data-dir {{data}} --output-dir {{bad}}",
    f"{RUNNER} test_model --data-dir {{data}} --output-dir {{bad}}",
    "src.train_runner --data-dir {data} --output-dir {new} --from-experiment {bad}",
    f"{RUNNER} train --data-dir {{data}} --output-dir {{new}} --encoder-weights {{bad}}",
    f"{RUNNER} train --data-dir {{data}} --output-dir {{new}} --init-weights {{bad}}",
    f"{RUNNER} train --data-dir {{data}} --output-dir {{new}} --from-epoch 1 --weights_dir {{bad}}",
    f"{RUNNER} generate_predictions {OTHER} --weights_dir {{bad}}",
    f"{RUNNER} test_model {OTHER} --weights_dir {{bad}}",
    f"{RUNNER} generate_predictions {OTHER} --input {{bad}}",
    "src.train_runner --num-workers 0 --device cpu --action generate_predictions --input {data} "
    "--output-dir {new} --weights {bad}",
    "src.scores {bad}",
    f"src.scores {{bad}} --truth {LABELS}",
    "src.scores {run} --groups {bad}",
    "src.scores {run} --image-scores {bad}",
    "src.submission write {predictions} --threshold 0.3 --out {new}/a.csv --image-scores {bad}",
    "src.scores {submission} --truth {bad}",
    f"src.scores {{submission}} --truth {LABELS} --truth-classes {{bad}}",
    "src.compare {bad} {run} --out {new}",
    "src.compare {run} {bad} --out {new}",
    f"src.compare {{bad}} {{submission}} --truth {LABELS} --out {{new}}",
    "src.compare {submission} {submission} --truth {bad} --out {new}",
    f"src.compare {{submission}} {{submission}} --truth {LABELS} --truth-classes {{bad}} "
    "--out {new}",
    "src.compare {run} {run} --out {new} --gallery 1 --data-dir {bad}",
    "src.submission write {bad} --out {new}/a.csv",
    "src.submission write {predictions} --threshold 0.3 --out {new}/a.csv --sample {bad}",
    "src.submission coco {bad} --out {new}/a.json",
    "src.submission coco {predictions} --threshold 0.3 --out {new}/a.json --images {bad}",
    "src.submission from-coco {bad} --images {coco} --out {new}/a.csv",
    "src.submission from-coco {results} --out {new}/a.csv --images {bad}",
    "src.submission from-coco {results} --out {new}/a.csv --sample {bad}",
    "src.submission fuse {bad} {submission} --method wbf --out {new}/a.csv",
    "src.submission fuse {submission} {bad} --method wbf --out {new}/a.csv",
    "src.submission fuse {submission} {predictions} --method wbf --out {new}/a.csv "
    "--data-dir {bad}",
    "src.submission fuse {bad} {predictions} --method wbf --out {new}/a_fold_0",
    "src.submission check {bad}",
    "src.submission check {submission} --sample {bad}",
    "src.submission stats {bad}",
    "src.submission stats {submission} --data-dir {bad}",
    "src.export {bad} --out {new}/a.onnx",
    "src.export {run} --out {new}/a.onnx --check-images {bad}",
    "src.export {bad} --share {new}/a",
    "src.export {run} --share {new}/a --groups {bad}",
    "scripts.predict_onnx {bad} {image}",
    "scripts.predict_onnx {onnx} {bad}",
    "src.datasets.folds --data-dir {bad}",
    "src.visualizations.eda --data-dir {bad}",
    "src.visualizations.plot_detections {bad} --out {new}/a.png",
    "src.visualizations.plot_global_head {bad} --out {new}/a.png",
    "src.visualizations.plot_groups {bad} --out {new}/a.png",
    "src.visualizations.plot_numbers {bad} --out {new}/a.png",
    "src.visualizations.plot_metrics {bad} --out {new}/a.png",
    "src.visualizations.plot_sweep {bad} --out {new}/a.png",
    "src.visualizations.plot_val_loss {bad} --out {new}/a.png",
    "src.visualizations.report {bad}",
    "src.visualizations.report {run} --data-dir {bad}",
    "src.visualizations.runs_index {bad} --out {new}",
    "src.visualizations.runs_index {run} {bad} --out {new}",
    "src.visualizations.runs_index {run} --out {new} --reports --data-dir {bad}",
    "scripts.baseline --data-dir {bad}",
    *(f"scripts.benchmark {part} --data-dir {{bad}}"
      for part in ("data", "epoch", "start", "metric", "levels")),
    "scripts.import_rsna_release --annotations {bad} --images {data} --out {new}/data",
    "scripts.import_rsna_release --annotations {export} --images {bad} --out {new}/data",
    "scripts.import_rsna_release --annotations {export} --images {data} --out {new}/data "
    "--kaggle-labels {bad} --kaggle-classes {data}/stage_2_detailed_class_info.csv",
    "scripts.import_labels {bad} --out {new}/data",
    "scripts.run_experiments --plan {bad} --output-dir {new}",
    "scripts.run_experiments --model demo --output-dir {new} --data-dir {bad}",
    TAKES_A_FILE,
]  # fmt: skip
# It writes that, or below it; a plain file that is in the way of a file is replaced.
WRITTEN = [
    f"{RUNNER} train --data-dir {{data}} --output-dir {{bad}}",
    f"{RUNNER} train --data-dir {{data}} --cache --output-dir {{bad}}",
    f"{RUNNER} check_data --data-dir {{data}} --output-dir {{bad}}",
    f"{RUNNER} check_data {OTHER} --out {{bad}}",
    f"{RUNNER} generate_predictions {OTHER} --input {{image}} --out {{bad}}",
    "src.compare {run} {run} --draws 100 --out {bad}",
    "src.submission write {predictions} --threshold 0.3 --out {bad}",
    "src.submission coco {predictions} --threshold 0.3 --out {bad}",
    "src.submission from-coco {results} --images {coco} --out {bad}",
    "src.submission fuse {submission} {predictions} --method wbf --out {bad}",
    "src.submission fuse {submission} {predictions} --method wbf --out {bad}.npz",
    "src.submission fuse {submission} {predictions} --method wbf --out {bad}_fold_0",
    "src.export {run} --out {bad}",
    "src.export {run} --share {bad}",
    "src.visualizations.eda --data-dir {data} --only class_counts --out {bad}",
    "src.visualizations.plot_detections {run} --threshold -1 --out {bad}",
    "src.visualizations.plot_global_head {run} --out {bad}",
    "src.visualizations.plot_groups {groups} --out {bad}",
    "src.visualizations.plot_numbers {run} --out {bad}",
    "src.visualizations.plot_metrics {run} --out {bad}",
    "src.visualizations.plot_sweep {run} --out {bad}",
    "src.visualizations.plot_val_loss {run} --out {bad}",
    "src.visualizations.report {run} --data-dir {data} --num-images 1 --out {bad}",
    "src.visualizations.runs_index {run} --out {bad}",
    "scripts.import_rsna_release --annotations {export} --images {data} --out {bad}",
    "scripts.import_labels {coco} --out {bad}",
    "scripts.make_demo_dataset --n-train 1 --n-test 1 --num-workers 0 --out {bad}",
    "scripts.draw_encodings --out {bad}",
    "scripts.run_experiments --model demo --data-dir {data} --output-dir {bad}",
    "scripts.try_encoders --models resnet10t --out {bad}",
]
PLACES_TO_WRITE = ("long", "below_file", "below_loop", "denied")
TAKES_NO_PATH = {"scripts/soak.py"}


@pytest.fixture(scope="module")
def given(phantoms, trained, tmp_path_factory):
    """Return what stands in the commands' braces, except {bad} and {new}."""
    folder = tmp_path_factory.mktemp("given")
    metric = (*RUNNER.split()[1:], "check_metric", "--output-dir", trained.output_dir)
    assert run_main(import_module("src.train_runner").main, *metric) == 0
    table = folder / "table.csv"
    patient = load_predictions(trained.predictions_path(1)).ids[0]
    table.write_text(f"patientId,all\n{patient},one\n")
    score = (trained.dir, "--nms", "0.05", "--groups", table)
    assert run_main(import_module("src.scores").main, *score) == 0
    predictions, submission = trained.predictions_path(1), folder / "submission.csv"
    write = ("write", predictions, "--out", submission, "--threshold", "0.3")
    assert run_main(submission_main, *write) == 0
    export, coco, results = (folder / f"{name}.json" for name in ("export", "coco", "results"))
    groups = [{"name": "Calculated", "labels": [{"id": "L", "name": "Normal"}]}]
    write_json(export, {"labelGroups": groups, "datasets": [{"annotations": []}]})
    write_json(coco, {"images": [{"id": 1, "file_name": "a.dcm"}], "annotations": [],
                      "categories": []})  # fmt: skip
    results.write_text(json.dumps([{"image_id": 1, "category_id": 1, "score": 0.5,
                                    "bbox": [1, 1, 2, 2]}]))  # fmt: skip
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph([node], "identity", ends[:1], ends[1:])
    network = onnx.helper.make_model(graph, ir_version=10)
    onnx.helper.set_model_props(network, dict.fromkeys(FACTS, "0"))
    onnx.save(network, folder / "model.onnx")
    return {
        "data": phantoms, "run": trained.dir, "output": trained.output_dir, "export": export,
        "predictions": predictions, "groups": trained.dir / "groups.csv",
        "submission": submission, "coco": coco, "results": results, "onnx": folder / "model.onnx",
        "image": next((phantoms / "stage_2_test_images").iterdir()),
    }  # fmt: skip


@contextmanager
def time_limit(seconds):
    def stop(*_):
        raise TimeoutError(f"no end after {seconds} seconds")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@pytest.fixture
def refuses(given, call_main, tmp_path):
    """Return a function that gives a command an unusable place, and reads what it says."""

    def call(command, kind):
        (tmp_path / "bad").mkdir()
        bad = PLACES[kind](tmp_path / "bad")
        module, *words = command.split()
        arguments = [word.format(**given, bad=bad, new=tmp_path / "new") for word in words]
        with denied_places(), time_limit(SECONDS):
            outcome = call_main(import_module(module).main, *arguments)
        assert outcome.code == 2, outcome
        assert "Traceback" not in outcome.err
        message = outcome.errors()[-1]
        assert message.startswith("error: ")
        assert NAME in message or "/dev/zero" in message, message

    return call


def name_of(command):
    return command.replace(f"{RUNNER} ", "").replace("{", "").replace("}", "")


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("command", READ, ids=name_of)
def test_what_cannot_be_read_is_refused_at_once_in_one_line(refuses, command, kind):
    if (command, kind) != (TAKES_A_FILE, "file"):
        refuses(command, kind)


@pytest.mark.parametrize("kind", PLACES_TO_WRITE)
@pytest.mark.parametrize("command", WRITTEN, ids=name_of)
def test_what_cannot_be_written_is_refused_in_one_line(refuses, command, kind):
    refuses(command, kind)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize(
    "command", [c for c in WRITTEN if c.startswith("src.submission") and c.endswith("{bad}")]
)
def test_no_file_replaces_a_pipe_or_a_device(refuses, command, kind):
    refuses(command, kind)


def test_every_command_and_every_flag_for_a_path_is_tried():
    """Look for flags of kind Path in the commands' code."""
    tried = " ".join([*READ, *WRITTEN])
    for path in COMMANDS:
        relative = path.relative_to(ROOT)
        if str(relative) in TAKES_NO_PATH:
            continue
        module = ".".join(relative.with_suffix("").parts)
        assert module in tried
        for node in ast.walk(ast.parse(path.read_text())):
            kinds = {word.arg: ast.unparse(word.value) for word in getattr(node, "keywords", [])}
            if isinstance(node, ast.Call) and kinds.get("type") == "Path":
                flag = ast.literal_eval(node.args[0])
                given_to = [c for c in (*READ, *WRITTEN) if c.startswith(module)]
                assert not flag.startswith("-") or any(flag in c for c in given_to), flag


def test_a_file_in_place_of_a_folder_stays(tmp_path, refuses):
    refuses(f"{RUNNER} train --data-dir {{data}} --output-dir {{bad}}", "file")
    assert [path.name for path in (tmp_path / "bad").iterdir()] == [NAME]
