"""Write one self-contained HTML page about a run: scores, curves, errors to look at, settings.

`python src/visualizations/report.py output/demo_fold_0 --data-dir data` writes
output/demo_fold_0/report.html. The page needs no server, no network and no other file.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from html import escape

import config
from src.datasets.data_folder import DataFolder, open_image_folder
from src.experiments.runs import read_description
from src.prediction.saved_epochs import load_epoch
from src.scoring.matching import find_boxes
from src.scoring.run_scores import choose_scores, honest_score_of
from src.scoring.sweep import load_sweep
from src.system.command_line import CommandParser, natural, positive, report_errors
from src.system.files import write_text
from src.visualizations import report_numbers as numbers
from src.visualizations import report_sections as sections
from src.visualizations import report_settings as settings
from src.visualizations.run_numbers import describe_ranking, run_numbers

STYLE_PATH = Path(__file__).with_name("report.css")
REPORT = "report.html"  # in the run's folder
N_IMAGES = 6  # of each list of the gallery
# The policy forbids scripts and anything from elsewhere, whatever a file's text may contain.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="note">{summary}</p>
{headline}
<h2>Curves</h2>
{curves}
<h2>Scores</h2>
{scores}
<h2>Numbers that papers quote</h2>
<p class="note">Epoch {epoch}; {ranking}.</p>
{numbers}
<h2>Gallery</h2>
<p class="note">Epoch {epoch}; a box counts when {setting}.</p>
{legend}
{gallery}
<h2>Settings</h2>
{settings}
</body>
</html>
"""
LEGEND = """<div class="legend">
<span><svg viewBox="0 0 34 18"><rect class="true" x="4" y="3" width="26" height="12"/></svg>true
box</span>
<span><svg viewBox="0 0 34 18"><rect class="found" x="4" y="3" width="26" height="12"/></svg>found
box, with its score</span>
<span><svg viewBox="0 0 34 18"><rect class="found marked" x="4" y="3" width="26" height="12"/></svg>
filled: the box that the image is listed for</span>
<span>bars: class probabilities of the whole image, the true class in blue</span>
</div>"""


def build_page(run_dir: Path, data_dir: Path | None, *, epoch: int | None, n_images: int) -> str:
    """Write the page.

    Args:
        data_dir: where the run's images lie; None takes the folder that it was trained on.
        epoch: whose predictions are shown; None takes the best.
        n_images: of each list of the gallery.

    Raises:
        InputError: something is missing or wrong; the message names it.
    """
    shown = choose_scores(run_dir, epoch)
    experiment = read_description(run_dir / "experiment.json")
    images_dir = Path(str(experiment.get("images", "")))
    if data_dir is not None or not experiment.get("images"):
        images_dir = DataFolder(data_dir or config.DATA_DIR).images_dir("train")
    findings = find_boxes(load_epoch([run_dir], shown.epoch), shown.postprocess)
    ids = [str(name) for name in findings.predictions.ids]
    quoted = run_numbers("", findings.predictions, shown.postprocess, numbers.N_DRAWS)
    images = open_image_folder(images_dir, ids, needs_all=False)
    wider_path = run_dir / "sweep.npz"
    return PAGE.format(
        title=escape(run_dir.resolve().name),
        style=STYLE_PATH.read_text(encoding="utf-8"),
        summary=escape(settings.summarise_experiment(experiment)),
        headline=sections.write_headline(
            findings, shown.epoch, honest_score_of(run_dir, shown.sweep)
        ),
        curves=sections.write_curves(run_dir / "history.csv"),
        scores=sections.write_scores(
            shown.sweep,
            shown.notes,
            wider=load_sweep(wider_path) if wider_path.exists() else None,
            hint="python src/scores.py with the run's folder sweeps NMS, box size and gate too.",
        ),
        ranking=escape(describe_ranking(shown.postprocess)),
        numbers=numbers.write_numbers(quoted),
        epoch=shown.epoch,
        setting=escape(sections.describe_postprocess(shown.postprocess)),
        legend=LEGEND,
        gallery=sections.write_gallery(findings, images, n_images),
        settings=settings.write_settings(experiment),
    )


def save_report(
    run_dir: Path,
    data_dir: Path | None,
    path: Path | None = None,
    *,
    epoch: int | None = None,
    n_images: int = N_IMAGES,
) -> Path:
    """Write the page to a path, by default report.html in the run's folder, and return it.

    Args:
        data_dir, epoch, n_images: see `build_page`.

    Raises:
        InputError: something is missing or wrong, or the page cannot be written.
    """
    page = build_page(run_dir, data_dir, epoch=epoch, n_images=n_images)
    path = path or run_dir / REPORT
    write_text(path, page)
    return path


def main() -> None:
    parser = CommandParser("Write one self-contained HTML page about a run.")
    add = parser.add_argument
    add("run", type=Path, help="folder of a run, such as output/demo_fold_0")
    add("--data-dir", type=Path, help="where the run's images lie; by default where they lay when "
        "it was trained")  # fmt: skip
    add("--epoch", type=natural, help="by default the best by scores.npz")
    add("--out", type=Path, help="by default report.html in the run's folder")
    add(
        "--num-images", type=positive, default=N_IMAGES, help="pictures in each list of the gallery"
    )
    arguments = parser.parse_args()
    with report_errors():
        path = save_report(
            arguments.run,
            arguments.data_dir,
            arguments.out,
            epoch=arguments.epoch,
            n_images=arguments.num_images,
        )
        print(path)


if __name__ == "__main__":
    main()
