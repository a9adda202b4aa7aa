"""Score the saved predictions of a run, epoch by epoch."""

from __future__ import annotations

from src.actions.flags import Flags
from src.actions.resolve import choose_epochs, choose_run, settle_postprocess
from src.scoring.grid import Grid, sweep_run
from src.system.files import check_file_place, check_place
from src.visualizations.figures import save_figure
from src.visualizations.plot_sweep import plot_sweep


def check_metric(flags: Flags) -> None:
    """Score the saved predictions at the paper's thresholds; save and show the table."""
    run = choose_run(flags)
    epochs = choose_epochs(flags, run.epochs_with_predictions(), run)
    postprocess = settle_postprocess(flags)
    grid = Grid(gates=(postprocess.gate,), shrinks=(postprocess.shrink,), nms=(postprocess.nms,))
    check_file_place(run.scores_path)
    check_place(run.pics_dir)
    sweep = sweep_run(run.dir, epochs, grid)
    sweep.save(run.scores_path)
    table = sweep.table().pivot(index="epoch", columns="threshold", values="score")
    print(table.to_string(float_format="%.3f"))
    best = sweep.best()
    print(
        sweep.why_no_best("epoch")
        if best is None
        else f"best score {best.score:.4f} at epoch {best.epoch}, threshold {best.threshold:g}"
    )
    pictures = save_figure(plot_sweep(sweep, run.name), run.pics_dir / "scores.png")
    print(run.scores_path, run.scores_path.with_suffix(".csv"), *pictures, sep="\n")
