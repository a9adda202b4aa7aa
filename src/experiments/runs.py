"""A run: one experiment on one fold, and where its files lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from src.structures import MAX_FOLDS
from src.system.errors import InputError
from src.system.files import read_json
from src.system.records import MAX_CAUSE, Rule, cut_text, within

DEBUG_TAG = "debug"
ENSEMBLE_TAG = "ensemble"  # reserved: no training may have it
MAX_DESCRIPTION_BYTES = 2**22  # of an experiment.json; a training's has a thousandth
CHECKPOINT_SUFFIX = ".safetensors"
OLD_CHECKPOINT_SUFFIX = ".pt"  # of runs of version 1, which are read and resumed
LAST = "last"  # names the checkpoint that a training resumes from
MAX_NAME = 1000  # characters; the name of an ensemble lists its experiments
MAX_EPOCH = 10**9

# What names a run in files, which may come from anywhere: it becomes the name of a folder.
ModelName = Annotated[
    str,
    Rule(
        lambda name: len(name) <= MAX_NAME and re.fullmatch(r"[\w.+/-]+", name, re.ASCII),
        "a name of letters, digits, '.', '_', '+', '-' and '/'",
    ),
]
Tag = Annotated[
    str,
    Rule(
        lambda tag: len(tag) <= MAX_NAME and re.fullmatch(r"[\w.+-]*", tag, re.ASCII),
        "a name of letters, digits, '.', '_', '+' and '-'",
    ),
]
Fold = Annotated[int, within(0, MAX_FOLDS - 1, "a fold")]


@dataclass(frozen=True)
class Run:
    """Names every file that belongs to a run.

    Attributes:
        model: the experiment's name in `table.EXPERIMENTS`.
        fold: the fold that is held out for validation.
        tag: tells runs of one experiment apart; may be empty.
        output_dir: the folder of all runs.
    """

    model: str
    fold: int
    tag: str
    output_dir: Path

    @property
    def name(self) -> str:
        """Return the folder's name: `<model>[_<tag>]_fold_<k>`."""
        return f"{self.common_name}_fold_{self.fold}"

    @property
    def common_name(self) -> str:
        """Return what the names of all folds begin with: `<model>[_<tag>]`."""
        return f"{self.model.replace('/', '-')}{f'_{self.tag}' if self.tag else ''}"

    def at(self, output_dir: Path | None) -> Run:
        """Return the run of this name in another folder of runs; None stays here."""
        return self if output_dir is None else replace(self, output_dir=output_dir)

    @property
    def dir(self) -> Path:
        return self.output_dir / self.name

    @property
    def experiment_path(self) -> Path:
        return self.dir / "experiment.json"

    @property
    def history_path(self) -> Path:
        return self.dir / "history.csv"

    @property
    def checkpoints_dir(self) -> Path:
        return self.dir / "checkpoints"

    @property
    def last_checkpoint_path(self) -> Path:
        """Return where the state of the training is written."""
        return self.checkpoints_dir / f"{LAST}{CHECKPOINT_SUFFIX}"

    @property
    def tensorboard_dir(self) -> Path:
        return self.dir / "tensorboard"

    @property
    def scores_path(self) -> Path:
        return self.dir / "scores.npz"

    @property
    def pics_dir(self) -> Path:
        return self.dir / "pics"

    def checkpoint_path(self, epoch: int) -> Path:
        """Return where an epoch's weights are written."""
        return self.checkpoints_dir / f"{epoch:03}{CHECKPOINT_SUFFIX}"

    def find_last_checkpoint(self) -> Path | None:
        """Return the state of the training in today's form or an old one; None where none is."""
        return _existing(self.last_checkpoint_path)

    def find_checkpoint(self, epoch: int) -> Path | None:
        """Return an epoch's weights in today's form or an old one; None where none are."""
        return _existing(self.checkpoint_path(epoch))

    def predictions_path(self, epoch: int) -> Path:
        return self.dir / "predictions" / f"{epoch:03}.npz"

    def test_predictions_path(self, epoch: int) -> Path:
        return self.dir / "predictions" / f"test_{epoch:03}.npz"

    def submission_path(self, split: str, epoch: int) -> Path:
        return self.dir / f"submission_{split}_{epoch:03}.csv"

    def epochs_with_checkpoint(self) -> list[int]:
        """Return the epochs whose weights are saved, ascending."""
        return saved_epochs(self.checkpoints_dir)

    def epochs_with_predictions(self) -> list[int]:
        """Return the epochs whose validation predictions are saved, ascending."""
        return numbered_files(self.dir / "predictions", ".npz")


def ensemble_run(runs: Sequence[Run]) -> Run:
    """Name what runs find together: `<model>[+<model>...]` with the tag `[<tag>_]ensemble`.

    Its fold is that of the first.
    """
    models = "+".join(dict.fromkeys(run.model for run in runs))
    tag = f"{runs[0].tag}_{ENSEMBLE_TAG}" if runs[0].tag else ENSEMBLE_TAG
    return replace(runs[0], model=models, tag=tag)


def check_owner(run: Run, folder: Path | None = None) -> None:
    """Make sure that a run's folder, if it is there, is not another run's of the same name.

    Experiment `X` with tag `Y` and experiment `X_Y` share a name.

    Args:
        folder: of results; None takes the run's own.

    Raises:
        InputError: the folder's experiment.json names another experiment or tag.
    """
    folder = folder or run.dir
    try:
        owner = read_description(folder / "experiment.json")
        model, tag = owner["model"], owner["tag"]
    except (InputError, KeyError):
        return  # no owner is known
    if (model, tag) != (run.model, run.tag):
        model, tag = (cut_text(str(name), MAX_CAUSE) for name in (model, tag))
        raise InputError(
            f"{folder}: belongs to --model {model}{f' --run {tag}' if tag else ''}; take another "
            f"--run for {run.model}"
        )


def load_run(run_dir: Path) -> Run:
    """Find out from experiment.json which run a folder holds.

    Raises:
        InputError: it holds none, or the folder was renamed.
    """
    if not run_dir.is_dir():
        raise InputError(f"{run_dir}: no such folder of a run")
    run_dir = run_dir.resolve()  # "." and links have no name of their own
    path = run_dir / "experiment.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; a folder that --action train made holds one")
    experiment = read_description(path)
    try:
        run = Run(str(experiment["model"]), int(experiment["fold"]), str(experiment["tag"]),
                  run_dir.parent)  # fmt: skip
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: does not tell model, fold and tag of a run") from error
    if run.dir != run_dir:
        raise InputError(
            f"{run_dir}: holds the run {cut_text(run.name, MAX_CAUSE)}; rename it to that"
        )
    return run


def runs_at(path: Path) -> list[Path]:
    """Return the folder of a run, or those of its folds where `path` is what their names share.

    `output/demo` stands for `output/demo_fold_0`, `output/demo_fold_1` and so on, as far as they
    are there, unless it holds predictions of its own.
    """
    if (path / "predictions").exists() or not path.parent.is_dir():
        return [path]
    pattern = re.compile(rf"{re.escape(path.name)}_fold_([0-9]+)", re.ASCII)
    matches = [(pattern.fullmatch(folder.name), folder) for folder in path.parent.iterdir()]
    folds = sorted((int(match[1]), folder) for match, folder in matches if match)
    return [folder for _, folder in folds] or [path]


def read_description(path: Path) -> dict[str, Any]:
    """Read experiment.json as it is; return an empty dict where there is none.

    Raises:
        InputError: it is something else.
    """
    if not path.exists():
        return {}
    content = read_json(path, MAX_DESCRIPTION_BYTES, InputError)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not the settings of a run: not an object")
    return content


def saved_epochs(checkpoints_dir: Path) -> list[int]:
    """Return the epochs whose weights lie in a folder, ascending."""
    endings = (CHECKPOINT_SUFFIX, OLD_CHECKPOINT_SUFFIX)
    return sorted({n for end in endings for n in numbered_files(checkpoints_dir, end)})


def require_weights(path: Path) -> Path:
    """Return the path of an epoch's weights.

    Raises:
        InputError: they are not there.
    """
    if path.is_file():
        return path
    saved = saved_epochs(path.parent)
    has = f"it has epochs {saved}" if saved else "--action train makes them"
    raise InputError(f"{path}: no such checkpoint; {has}")


def _existing(path: Path) -> Path | None:
    """Return `path`, or the file of version 1 in its place; today's form counts first."""
    forms = (path, path.with_suffix(OLD_CHECKPOINT_SUFFIX))
    return next((form for form in forms if form.exists()), None)


def numbered_files(folder: Path, suffix: str) -> list[int]:
    """Return the numbers n of the files `<n:03><suffix>` in `folder`, ascending."""
    if not folder.is_dir():
        return []
    pattern = re.compile(rf"([0-9]{{3,}}){re.escape(suffix)}")
    matches = (pattern.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)
