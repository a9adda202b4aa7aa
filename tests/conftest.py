"""What several tests share: phantom X-rays, a trained run, and commands as a user types them."""

import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest

from scripts import make_demo_dataset
from src import train_runner
from src.experiments.runs import Run

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else onnxruntime reports its use when it is imported
HANGS_AFTER = 1800  # seconds without an end; a machine with much else to do needs many
TRAINING = ("--model", "demo", "--num-epochs", "2", "--batch-size", "2")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    def errors(self):
        """Return the lines on standard error without those of progress bars."""
        lines = [line.split("\r")[-1] for line in self.err.splitlines()]
        return [line for line in lines if line and "batch/s]" not in line and "s/batch" not in line]


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory):
    """Let the temporary files of libraries and of killed processes lie among pytest's own."""
    folder = str(tmp_path_factory.mktemp("t"))  # the path of a socket in it has 107 characters
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Return the data folder of 16 + 3 phantom radiographs; tests leave it as it is."""
    out_dir = tmp_path_factory.mktemp("some phantoms") / "data"
    counts = ["--n-train", "16", "--n-test", "3", "--seed", "0", "--num-workers", "0"]
    make_demo_dataset.main(["--out", str(out_dir), *counts])
    return out_dir


@pytest.fixture(scope="session")
def run_command(tmp_path_factory):
    """Return a function that runs a command in another directory, by default one that must work."""
    elsewhere = tmp_path_factory.mktemp("else where")
    own = ("PNEUMONIA_DATA_DIR", "PNEUMONIA_OUTPUT_DIR", "PNEUMONIA_WEIGHTS_DIR", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in own}

    def run(*command, cwd=elsewhere, ok=True, variables=None):
        result = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=cwd,
            env=environment | {"OMP_NUM_THREADS": "1"} | (variables or {}),
            capture_output=True,
            text=True,
            timeout=HANGS_AFTER,
        )
        assert not ok or result.returncode == 0, result.stderr
        return Outcome(result.returncode, result.stdout, result.stderr)

    return run


def run_main(main, *arguments):
    """Run a command's main() in this process, quicker than a new one; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, arguments)])
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main() sets it
        try:
            main()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 1
    return 0


@pytest.fixture
def call_main(capfd):
    """Return a function that runs a command's main() in this process, and keeps what it says."""

    def call(main, *arguments):
        capfd.readouterr()
        code = run_main(main, *arguments)
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def trained(phantoms, tmp_path_factory):
    """Return a run that was trained for two epochs; tests leave its files as they are."""
    output_dir = tmp_path_factory.mktemp("trained") / "out put"
    folders = ("--data-dir", phantoms, "--output-dir", output_dir)
    arguments = ("--action", "train", *TRAINING, *folders, "--num-workers", "0")
    assert run_main(train_runner.main, *arguments) == 0
    return Run("demo", 0, "", output_dir)


@pytest.fixture(scope="session")
def talkative(trained, tmp_path_factory):
    """Return a folder of runs whose networks find boxes, unlike one that was trained so briefly.

    They are demo and twin, an experiment yet to be made known, on folds 0 and 1, each with epochs
    0 and 1 whose last layers are drawn at random.
    """
    import torch  # heavy, and most tests go without

    from src.experiments.checkpoints import load_checkpoint

    output_dir = tmp_path_factory.mktemp("talkative")
    random = torch.Generator().manual_seed(0)
    learned = load_checkpoint(trained.checkpoint_path(0), "demo")
    for model, fold, epoch in product(("demo", "twin"), (0, 1), (0, 1)):
        weights = dict(learned.model)
        for name in ("class_head.output.weight", "box_head.output.weight",
                     "global_head.linear.weight"):  # fmt: skip
            weights[name] = 0.1 * torch.randn(weights[name].shape, generator=random)
        weights["class_head.output.bias"] = weights["class_head.output.bias"] + 1.5
        facts = replace(learned.facts, experiment=model, epoch=epoch)
        changed = replace(learned, facts=facts, model=weights)
        changed.save(Run(model, fold, "", output_dir).checkpoint_path(epoch))
    return output_dir


@pytest.fixture(scope="session")
def read_picture():
    """Return a function that reads a picture as (H, W, 3) uint8, RGB."""

    def read(path):
        picture = cv2.imread(str(path))
        assert picture is not None, f"{path} is no picture"
        return picture[..., ::-1]

    return read


@pytest.fixture
def listing():
    """Return a function that tells when something under some folders changes."""

    def list_files(*folders: Path):
        return {
            str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for folder in folders
            for path in [folder, *folder.rglob("*")]
        }

    return list_files
