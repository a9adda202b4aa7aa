"""Mistreat trainings for some minutes, and show that each ends as one that was left in peace.

python scripts/soak.py --minutes 10 --seed 0
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import os
import random
import resource
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from src.experiments.runs import Run
from src.system.command_line import CommandParser, not_negative, report_errors
from src.system.errors import InputError
from src.system.processes import tune_process

ROOT = Path(__file__).resolve().parents[1]
RUNNER = ROOT / "src" / "train_runner.py"
MODEL, N_EPOCHS, N_IMAGES = "demo", 2, 32
QUOTA = 300_000  # bytes of a file; a checkpoint is larger
EXIT_INPUT_ERROR = 2
FIRST_HARM_SECONDS, LAST_HARM_SECONDS = 2.0, 7.0  # after the start of a training


@dataclass
class Soak:
    """Trainings under mistreatment, and what became of them.

    Attributes:
        folder: of data and runs.
        rng: chooses what happens, and when.
        reference: the run that was left in peace.
        counts: of each kind of harm that was done.
        n_finished: trainings that ended, equal to the reference.
        n_checked_files: that were read after some harm.
    """

    folder: Path
    rng: random.Random
    reference: Run
    counts: Counter[str] = field(default_factory=Counter)
    n_finished: int = 0
    n_checked_files: int = 0

    def mistreat(self, deadline: float) -> None:
        """Train run after run until the deadline; the last one is left to finish."""
        while time.monotonic() < deadline or not self.n_finished:
            run = Run(MODEL, 0, f"try{self.n_finished}", self.folder / "output")
            harms: list[Callable[[Run], None]] = [
                lambda run: self._kill(run, signal.SIGKILL),
                lambda run: self._kill(run, signal.SIGTERM),
                lambda run: self._kill(run, signal.SIGINT),
                self._break_an_image,
                self._fill_the_disk,
            ]
            self.rng.shuffle(harms)
            for harm in harms:
                if time.monotonic() < deadline and not _is_finished(run):
                    harm(run)
                    self._check_files(run)
            code, text = _finish(self._start(run))
            _expect(code == 0, f"{run.name} does not go on: {text}")
            self._check_files(run)
            _expect_same(run, self.reference)
            self.n_finished += 1

    def _start(self, run: Run, *, quota: bool = False) -> subprocess.Popen[str]:
        flags: tuple[str, ...] = ("--run", run.tag, "--resume", "--checkpoint-minutes", "0.01")
        if quota:  # shared memory counts as files, and batches of other processes need it
            flags += ("--num-workers", "0")
        return start_training(self.folder, flags, quota=quota)

    def _kill(self, run: Run, number: signal.Signals) -> None:
        process = self._start(run)
        try:
            process.wait(self.rng.uniform(FIRST_HARM_SECONDS, LAST_HARM_SECONDS))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, number)
            self.counts[number.name] += 1
        code, text = _finish(process)
        allowed = {0, -number, 128 + number}
        _expect(code in allowed, f"{number.name} gives exit code {code}: {text}")

    def _break_an_image(self, run: Run) -> None:
        paths = sorted((self.folder / "data" / "stage_2_train_images").iterdir())
        path = self.rng.choice(paths)
        content = path.read_bytes()
        path.write_bytes(content[: self.rng.randrange(len(content) // 2)])
        try:
            code, text = _finish(self._start(run))
        finally:
            path.write_bytes(content)
        left_out = code == 0  # an epoch is cut down to whole batches
        _expect(left_out or (code == EXIT_INPUT_ERROR and path.name in text.splitlines()[-1]),
                f"a broken image gives exit code {code}: {text}")  # fmt: skip
        self.counts["broken image"] += 1

    def _fill_the_disk(self, run: Run) -> None:
        code, text = _finish(self._start(run, quota=True))
        _expect(code == EXIT_INPUT_ERROR and "cannot be written" in text.splitlines()[-1],
                f"a full disk gives exit code {code}: {text}")  # fmt: skip
        self.counts["full disk"] += 1

    def _check_files(self, run: Run) -> None:
        """Read everything that has a final name; half a file would raise.

        A hidden name is no final one: a killed writer leaves its temporary file behind.
        """
        from src.experiments.checkpoints import load_checkpoint
        from src.experiments.history import read_history
        from src.prediction.predictions import load_predictions

        for path in sorted(run.dir.rglob("[!.]*.safetensors")) if run.dir.exists() else ():
            load_checkpoint(path, MODEL, resume=path == run.last_checkpoint_path)
            self.n_checked_files += 1
        for epoch in run.epochs_with_predictions():
            load_predictions(run.predictions_path(epoch))
            self.n_checked_files += 1
        if run.history_path.exists():
            read_history(run.history_path, ["train_loss", "valid_loss"])
            self.n_checked_files += 1


def main(argv: list[str] | None = None) -> int:
    """Run the command; what was lost is an error."""
    parser = CommandParser("Mistreat trainings, and show that nothing is lost.")
    parser.add_argument("--minutes", type=not_negative, default=10.0, help="of mistreatment, about")
    parser.add_argument("--seed", type=int, default=0, help="of what happens when")
    arguments = parser.parse_args(argv)
    tune_process()
    with report_errors(), tempfile.TemporaryDirectory(prefix="soak ") as name:
        deadline = time.monotonic() + 60 * arguments.minutes
        folder = Path(name)
        _make_data(folder / "data")
        code, text = _finish(start_training(folder, ("--run", "left_in_peace")))
        _expect(code == 0, text)
        reference = Run(MODEL, 0, "left_in_peace", folder / "output")
        soak = Soak(folder, random.Random(arguments.seed), reference)
        soak.mistreat(deadline)
        for kind, count in sorted(soak.counts.items()):
            print(f"{kind:14} {count:4} times")
        print(
            f"{soak.n_finished} trainings finished, each equal to the one left in peace bit for "
            f"bit; {soak.n_checked_files} files read after harm, all whole: nothing was lost"
        )
        return 0


def start_training(
    folder: Path, flags: tuple[str, ...], *, quota: bool = False
) -> subprocess.Popen[str]:
    """Start a training as a process group of its own.

    Args:
        folder: of data and output.
        quota: let no file grow beyond `QUOTA`, as a full disk would.
    """
    command = [RUNNER, "--action", "train", "--model", MODEL, "--num-epochs", N_EPOCHS,
               "--batch-size", 4, "--num-workers", 1, "--data-dir", folder / "data",
               "--output-dir", folder / "output", *flags]  # fmt: skip
    limits = (QUOTA, QUOTA)
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)) if quota else None,
    )


def _make_data(out_dir: Path) -> None:
    script = ROOT / "scripts" / "make_demo_dataset.py"
    counts = ["--n-train", str(N_IMAGES), "--n-test", "1", "--seed", "0"]
    subprocess.run([sys.executable, str(script), "--out", str(out_dir), *counts],
                   check=True, capture_output=True)  # fmt: skip


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    text, _ = process.communicate()
    lines = [line.split("\r")[-1] for line in text.splitlines() if line.strip()]
    return process.returncode, "\n".join(lines[-3:])


def _is_finished(run: Run) -> bool:
    return run.checkpoint_path(N_EPOCHS - 1).exists()


def _expect_same(run: Run, reference: Run) -> None:
    """Compare weights, predictions and history bit for bit, without what the epochs cost."""
    import numpy as np
    import pandas as pd
    import torch

    from src.experiments.checkpoints import load_checkpoint
    from src.experiments.history import COSTS
    from src.prediction.predictions import ARRAYS, load_predictions

    for epoch in range(N_EPOCHS):
        ours, expected = (
            load_checkpoint(one.checkpoint_path(epoch), MODEL).model for one in (run, reference)
        )
        same = all(torch.equal(ours[name], weight) for name, weight in expected.items())
        _expect(same, f"{run.name}: other weights in epoch {epoch}")
        found, wanted = (load_predictions(one.predictions_path(epoch)) for one in (run, reference))
        same = all(np.array_equal(getattr(found, name), getattr(wanted, name)) for name in ARRAYS)
        _expect(same, f"{run.name}: other predictions in epoch {epoch}")
    history, wanted_history = (
        pd.read_csv(one.history_path, dtype=str).drop(columns=list(COSTS))
        for one in (run, reference)
    )
    _expect(history.equals(wanted_history), f"{run.name}: another history")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(f"something was lost: {message}")


if __name__ == "__main__":
    sys.exit(main())
