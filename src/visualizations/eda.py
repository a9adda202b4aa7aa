"""Look at a data folder before training: its classes, its boxes, what augmentation makes of them.

`python src/visualizations/eda.py --data-dir data --out pics/eda --only class_counts examples`
writes each figure as PNG and PDF. The paper's figures 1 (examples) and 2 (class counts) are among
them, and the evidence for turning boxes by the thirds of their edges (section 4).
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import warnings
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

import config
from src.datasets.tables import AnnotationsError
from src.system.command_line import CommandParser, natural, report_errors
from src.visualizations.eda_example import Subject, read_subject
from src.visualizations.eda_images import (
    draw_augmentation,
    draw_examples,
    draw_rotation_example,
    draw_rotation_growth,
)
from src.visualizations.eda_labels import draw_box_maps, draw_boxes_per_image, draw_class_counts
from src.visualizations.figures import PRINT_DPI, save_figure

FIGURES: dict[str, Callable[[Subject], Figure]] = {
    "class_counts": draw_class_counts,
    "boxes_per_image": draw_boxes_per_image,
    "box_maps": draw_box_maps,
    "rotation_growth": draw_rotation_growth,
    "examples": draw_examples,
    "augmentation": draw_augmentation,
    "rotation_example": draw_rotation_example,
}


def draw_figures(subject: Subject, names: Sequence[str] | None) -> dict[str, Figure]:
    """Draw the figures asked for, or all for which the data folder has boxes and images.

    Raises:
        InputError: a figure that was asked for cannot be drawn, or a file is broken.
    """
    figures: dict[str, Figure] = {}
    for name in names or FIGURES:
        try:
            figures[name] = FIGURES[name](subject)
        except AnnotationsError as error:
            if names:
                raise
            warnings.warn(f"{name} is left out: {error}", stacklevel=2)
    return figures


def main() -> None:
    parser = CommandParser("Draw the classes, boxes and augmentations of a data folder.")
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR)
    parser.add_argument("--out", type=Path, default=Path("eda"), help="folder of the figures")
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="NAME",
                        help=f"some of {', '.join(FIGURES)}")  # fmt: skip
    parser.add_argument("--patient", help="the image to show; a random one without")
    parser.add_argument("--level", type=int, default=20, help="of augmentation")
    parser.add_argument("--seed", type=natural, default=0, help="of the choice and augmentation")
    arguments = parser.parse_args()
    with report_errors():
        subject = read_subject(
            arguments.data_dir,
            level=arguments.level,
            seed=arguments.seed,
            patient_id=arguments.patient,
        )
        figures = draw_figures(subject, arguments.only)
        for name, figure in figures.items():
            print(*save_figure(figure, arguments.out / f"{name}.png", dpi=PRINT_DPI), sep="\n")


if __name__ == "__main__":
    main()
