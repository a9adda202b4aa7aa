"""Draw one chest as both rules for grey values show it in other files; command line.

python scripts/draw_encodings.py --out grey_values.png
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from src.structures import Grey
from src.system.command_line import CommandParser, report_errors

SHOWN = ("8 bits", "white marker, 40 x 40 pixels", "3 hot pixels at 16383", "padding of -2000",
         "window", "VOI LUT, descending", "MONOCHROME2, shape INVERSE",
         "PNG of 16 bits with 12")  # fmt: skip
RULES: dict[Grey, str] = {"range": "darkest to brightest", "viewer": "as a viewer"}
SIDE = 1.9  # inches of a picture
SEED = 11
STEP = 4  # every which pixel is drawn


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parse_arguments(argv)
    with report_errors():
        draw(arguments.out)


def draw(path: Path) -> None:
    """Draw a column for each encoding, a row for each rule."""
    import numpy as np

    from scripts.phantoms import OPACITY, draw_phantom
    from scripts.radiograph_encodings import ENCODINGS
    from src.radiographs.image_files import read_any_image
    from src.radiographs.pixels import as_float
    from src.visualizations.figures import check_picture_path, new_figure, save_figure, show_image

    check_picture_path(path)
    phantom = draw_phantom(np.random.default_rng(SEED), OPACITY, view="PA", sex="M").pixels
    figure = new_figure(SIDE * len(SHOWN), 2.2 * SIDE)
    axes = figure.subplots(len(RULES), len(SHOWN))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "radiograph")
        for column, name in enumerate(SHOWN):
            file.write_bytes(ENCODINGS[name](phantom))
            for row, rule in enumerate(RULES):
                image = as_float(read_any_image(file, grey=rule))
                title = name.replace(", ", ",\n", 1) if row == 0 else ""
                show_image(axes[row, column], image[::STEP, ::STEP], title=title)
    for row, text in enumerate(RULES.values()):
        axes[row, 0].set_ylabel(text)
    save_figure(figure, path)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("Draw one chest as both rules for grey values show it in other files.")
    parser.add_argument("--out", type=Path, required=True, help="the picture, .png or .pdf")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
