from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.patches import Rectangle

from src.system.texts import printable
from src.visualizations.figures import (
    COLOURS,
    clean,
    draw_heat_map,
    drawable,
    name_runs,
    new_figure,
    save_figure,
    style_of,
)


def draw_line():
    figure = new_figure(4, 3)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=style_of(0)["color"])
    clean(axes, xlabel="epoch", ylabel="loss", title="a title")
    return figure


def test_a_figure_is_saved_as_png_and_pdf(tmp_path, read_picture):
    paths = save_figure(draw_line(), tmp_path / "new folder" / "figure.png")
    assert [path.name for path in paths] == ["figure.png", "figure.pdf"]
    picture = read_picture(paths[0])
    assert picture.shape == (450, 600, 3)
    assert picture.std() > 0
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)


def test_a_figure_is_the_same_file_every_time(tmp_path):
    for path in save_figure(draw_line(), tmp_path / "a.png"):
        again = tmp_path / "b.png"
        save_figure(draw_line(), again)
        assert path.read_bytes() == again.with_suffix(path.suffix).read_bytes()


def test_a_figure_belongs_to_no_window():
    import matplotlib.pyplot as plt

    draw_line()
    assert plt.get_fignums() == []


def test_styles_of_many_lines_differ():
    styles = [tuple(style_of(i).items()) for i in range(4 * len(COLOURS))]
    assert len(set(styles)) == len(styles)


def test_runs_are_named_by_their_folders_as_far_as_it_takes():
    assert name_runs([Path("one/a_fold_0"), Path("two/b_fold_0")]) == ["a_fold_0", "b_fold_0"]
    same = [Path("/one/a_fold_0"), Path("/two/a_fold_0"), Path("/one/a_fold_0")]
    assert name_runs(same) == ["one/a_fold_0", "two/a_fold_0", "one/a_fold_0 (2)"]


def test_a_heat_map_is_written_light_on_dark_and_dark_on_light():
    axes = new_figure(4, 3).subplots()
    values = np.array([[0.0, 1.0]])
    draw_heat_map(axes, values, [["low", "high"]], rows=["a"], columns=["x", "y"], mark=(0, 1))
    assert [text.get_color() for text in axes.texts] == ["white", "black"]
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 0)]
    (frame,) = axes.patches
    assert isinstance(frame, Rectangle)
    assert frame.get_bbox().bounds == (0.5, -0.5, 1, 1)


@pytest.mark.parametrize("name", ["a$x_{$b", "$", "_a", r"a\$b", "\udcff\x1b", "100 %"])
def test_a_name_is_drawn_as_it_is(tmp_path, name):
    figure = new_figure(4, 3)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label=drawable(name))
    axes.set_title(drawable(name))
    legend = axes.legend()
    save_figure(figure, tmp_path / "figure.png")
    (text,) = legend.get_texts()
    assert not is_math_text(text.get_text())
    assert text.get_text().replace(r"\$", "$").strip() == printable(name)  # as matplotlib draws it


def test_letters_that_the_font_lacks_are_told_once_with_the_files_name(tmp_path):
    figure = new_figure(4, 3)
    figure.suptitle("肺")
    with pytest.warns(UserWarning) as told:
        save_figure(figure, tmp_path / "figure.png")
    (warning,) = told
    assert str(warning.message).startswith(f"{tmp_path / 'figure.png'}: Glyph ")
