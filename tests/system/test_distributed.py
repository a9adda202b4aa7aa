"""Two processes give what one gives."""

import json
import os
import shutil
import socket
import weakref
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.multiprocessing

from src.datasets.loaders import load_labelled_images
from src.experiments.checkpoints import load_checkpoint
from src.experiments.runs import Run
from src.prediction.image_sets import labelled_image_set
from src.prediction.inference import Inference
from src.prediction.predictions import load_predictions
from src.prediction.presets import Postprocess
from src.prediction.provenance import Member, NetworkSet
from src.retinanet.acceleration import Acceleration
from src.system.distributed import ALONE, Processes, joined_processes
from src.system.errors import InputError
from src.train_runner import main
from src.training.loop import Training
from src.training.options import TrainingOptions
from tests.conftest import TRAINING
from tests.histories import repeatable_of
from tests.paths import ROOT
from tests.training.test_training import SMALL

# Of two processes: batch norm statistics and dropout are drawn from each one's own images.
COMPARABLE = replace(SMALL, batch_norm="frozen", dropout_class=0.0, dropout_global=0.0)
SCRIPT = ROOT / "src" / "train_runner.py"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train(processes, data_dir, output_dir, info):
    options = TrainingOptions(
        acceleration=Acceleration(device=torch.device("cpu")),
        processes=processes,
        seed=7,
        n_workers=0,
    )
    training = Training(
        Run("demo", 0, "", output_dir), info, load_labelled_images(data_dir, 0), options
    )
    training.start()
    training.run()


def train_as_one_of_two(rank, port, data_dir, output_dir, info):
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    torch.set_num_threads(1)
    with joined_processes("cpu") as processes:
        train(processes, data_dir, output_dir, info)


def rows_of(run):
    return [{name: float(value) for name, value in row.items()} for row in repeatable_of(run)]


@pytest.fixture(scope="module")
def alone(phantoms, tmp_path_factory):
    """Return a run of one process."""
    output_dir = tmp_path_factory.mktemp("alone")
    train(ALONE, phantoms, output_dir, COMPARABLE)
    return Run("demo", 0, "", output_dir)


@pytest.fixture(scope="module")
def together(phantoms, tmp_path_factory):
    """Return the same run of two processes that take two batches to a step."""
    output_dir = tmp_path_factory.mktemp("together")
    info = replace(COMPARABLE, batch_size=2, accumulate=2)
    torch.multiprocessing.spawn(
        train_as_one_of_two, (free_port(), phantoms, output_dir, info), nprocs=2
    )
    return Run("demo", 0, "", output_dir)


def test_two_processes_give_the_losses_of_one(alone, together):
    for row, expected in zip(rows_of(together), rows_of(alone), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


def test_two_processes_give_the_weights_of_one(alone, together):
    ours, expected = (
        load_checkpoint(r.checkpoint_path(1), "demo").model for r in (together, alone)
    )
    start = load_checkpoint(alone.checkpoint_path(0), "demo").model
    off, moved = (
        torch.cat([(a[name] - b[name]).double().flatten() for name in expected]).norm()
        for a, b in ((ours, expected), (expected, start))
    )
    # Adam turns a gradient near 0 into a step by its sign: single weights may differ by rounding.
    assert 0 < off / moved < 0.02


def test_two_processes_predict_every_image_once_and_in_order(alone, together):
    ours, expected = (load_predictions(r.predictions_path(1)) for r in (together, alone))
    np.testing.assert_array_equal(ours.ids, expected.ids)
    np.testing.assert_array_equal(ours.true_boxes_xyxy, expected.true_boxes_xyxy)
    np.testing.assert_allclose(ours.class_probs, expected.class_probs, atol=1e-3)


def test_two_processes_validate_the_network_that_is_saved(phantoms, tmp_path):
    """Each moves statistics and average by its own images last; the first one's count."""
    info = replace(SMALL, n_epochs=1, batch_size=2, ema_decay=0.5)
    assert info.trains_batch_norm
    torch.multiprocessing.spawn(
        train_as_one_of_two, (free_port(), phantoms, tmp_path, info), nprocs=2
    )
    run, images = Run("demo", 0, "", tmp_path), load_labelled_images(phantoms, 0)
    inference = Inference(acceleration=Acceleration(device=torch.device("cpu")), n_workers=0)
    member = Member(run=run, experiment=info, epoch=0, path=run.checkpoint_path(0))
    found = inference.predict(
        labelled_image_set(images, images.valid),
        NetworkSet(members=(member,)),
        Postprocess(),
    )
    saved = load_predictions(run.predictions_path(0))
    np.testing.assert_allclose(saved.class_probs, found.class_probs, atol=1e-5)


def test_torchrun_predicts_what_one_process_predicts(
    phantoms, talkative, run_command, call_main, tmp_path
):
    flags = ("--action", "generate_predictions", "--model", "demo", "--input",
             phantoms / "stage_2_train_images", "--output-dir", talkative)  # fmt: skip
    outcome = call_main(main, *flags, "--out", tmp_path / "one", "--num-workers", "0")
    assert outcome.code == 0, outcome.err
    torchrun(run_command, *flags, "--out", tmp_path / "two")
    one, two = (
        load_predictions(next((tmp_path / name).rglob("predictions.npz")))
        for name in ("one", "two")
    )
    np.testing.assert_array_equal(one.ids, two.ids)
    np.testing.assert_array_equal(one.offsets, two.offsets)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
    assert len(one.scores) > 10


def torchrun(run_command, *arguments, ok=True):
    return run_command(
        "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port(),
        "--", SCRIPT, *arguments, "--num-workers", "0", "--device", "cpu", ok=ok,
    )  # fmt: skip


def test_torchrun_trains_and_the_first_process_alone_writes_and_talks(
    phantoms, run_command, tmp_path
):
    folders = ("--data-dir", phantoms, "--output-dir", tmp_path)
    outcome = torchrun(run_command, "--action", "train", *TRAINING, "--num-epochs", "1", *folders,
                       "--run", "two")  # fmt: skip
    run = Run("demo", 0, "two", tmp_path)
    assert outcome.out.count("training images") == 1
    assert "2 processes" in outcome.out
    assert run.epochs_with_checkpoint() == [0]
    assert len(list(run.tensorboard_dir.iterdir())) == 1


def test_processes_whose_time_is_up_stop_after_the_same_step(phantoms, run_command, tmp_path):
    folders = ("--data-dir", phantoms, "--output-dir", tmp_path)
    flags = ("--action", "train", *TRAINING, *folders)
    outcome = torchrun(run_command, *flags, "--max-hours", "1e-9", ok=False)
    assert outcome.code == 1  # torchrun's own
    assert "stopped by --max-hours in epoch 0, 1 of 5 batches" in outcome.err
    run = Run("demo", 0, "", tmp_path)
    assert json.loads(run.experiment_path.read_text())["ended_by"] == "--max-hours"
    state = load_checkpoint(run.last_checkpoint_path, "demo", resume=True).facts.training
    assert state is not None
    assert state.progress["n_batches"] == 1


def test_a_process_that_fails_ends_all_and_says_why(phantoms, run_command, tmp_path):
    data_dir = tmp_path / "data"
    shutil.copytree(phantoms, data_dir)
    broken = next((data_dir / "stage_2_train_images").iterdir())
    broken.write_text("no radiograph")
    folders = ("--data-dir", data_dir, "--output-dir", tmp_path)
    outcome = torchrun(run_command, "--action", "train", *TRAINING, *folders, ok=False)
    assert outcome.code != 0
    assert f"error: {broken}: neither a DICOM, PNG nor JPEG file" in outcome.err


class Network:
    """Stands for a network that holds the group, and itself, as modules with hooks do."""

    def __init__(self):
        self.itself = self


@pytest.mark.parametrize("error", [None, InputError])
def test_a_network_is_gone_before_the_group_that_it_holds(monkeypatch, error):
    networks: list[weakref.ref[Network]] = []
    left: list[Network | None] = []
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend: None)
    monkeypatch.setattr(
        "torch.distributed.destroy_process_group", lambda: left.extend(ref() for ref in networks)
    )
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)

    def work():
        network = Network()
        networks.append(weakref.ref(network))
        try:
            if error is not None:
                raise MemoryError
        except MemoryError as cause:
            raise error("what went wrong") from cause

    with nullcontext() if error is None else pytest.raises(error), joined_processes("cpu"):
        work()
    assert left == [None]


@pytest.mark.parametrize(
    ("variables", "device", "match"),
    [
        ({"WORLD_SIZE": "2"}, "cpu", "RANK=None: torchrun sets it"),
        ({"WORLD_SIZE": "two"}, "cpu", "WORLD_SIZE='two'"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "cuda:1", "auto, cpu or cuda"),
    ],
)
def test_an_incomplete_torchrun_is_refused(monkeypatch, variables, device, match):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=match), joined_processes(device):
        pass


def test_batches_that_cannot_be_shared_are_refused(phantoms, tmp_path):
    for info in (replace(COMPARABLE, batch_size=3), replace(COMPARABLE, batch_size=64)):
        options = TrainingOptions(
            acceleration=Acceleration(device=torch.device("cpu")),
            processes=Processes(0, 2),
            seed=7,
        )
        with pytest.raises(InputError, match="cannot be shared by 2 processes"):
            Training(Run("demo", 0, "", tmp_path), info, load_labelled_images(phantoms, 0), options)
