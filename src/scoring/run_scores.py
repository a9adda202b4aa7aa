"""The scores of a run, saved or computed, and the epoch and setting at which it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.prediction.presets import Postprocess
from src.prediction.saved_epochs import saved_epochs
from src.scoring.grid import Grid, sweep_run
from src.scoring.honest import HonestScore, honest_score
from src.scoring.sweep import SCORES_ALL, Sweep, load_sweep


@dataclass(frozen=True, eq=False)
class RunScores:
    """What of a run is shown.

    Attributes:
        epoch: whose predictions.
        postprocess: which boxes count.
        sweep: the scores, saved or computed just now.
        notes: what the reader should know of them.
    """

    epoch: int
    postprocess: Postprocess
    sweep: Sweep
    notes: tuple[str, ...]


def choose_scores(run_dir: Path, epoch: int | None = None) -> RunScores:
    """Take the best epoch by scores.npz, or the one that is named, and its best setting.

    Scores that are missing are computed at the paper's grid, and not saved.

    Raises:
        InputError: the run, its predictions or those of the epoch are missing.
    """
    saved, path = saved_epochs(run_dir), run_dir / "scores.npz"
    notes = []
    if path.exists():
        sweep = load_sweep(path)
        if sweep.lack(saved):
            notes.append(f"scores.npz {sweep.lack(saved)}; {SCORES_ALL}.")
    else:
        sweep = sweep_run(run_dir)
        notes.append(
            "The run's folder holds no scores.npz: these scores were computed for this page. "
            "--action check_metric saves them."
        )
    choice = sweep.choose(saved, epoch)
    if choice.epoch not in sweep.epochs:
        choice = sweep_run(run_dir, [choice.epoch], Grid(nms=sweep.nms)).choose(saved, choice.epoch)
    return RunScores(choice.epoch, choice.postprocess, sweep, tuple(notes))


def honest_score_of(run_dir: Path, sweep: Sweep) -> HonestScore | None:
    """Score a run's images at settings that others chose; None where predictions are gone."""
    if not set(sweep.epochs) <= set(saved_epochs(run_dir)):
        return None
    return honest_score([run_dir], sweep)
