import base64
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from src.prediction.presets import Postprocess
from src.scoring.matching import find_boxes
from src.visualizations.figures import new_figure
from src.visualizations.gallery import Entry
from src.visualizations.inline_pictures import MAX_SIDE, draw_entry, embed_figure
from tests.made_predictions import ALL, WHOLE, make_predictions

FOUND = [96, 48, 144, 144]


def entry_svg(image=None, *, postprocess=ALL, entry=None, source_crop=None):
    predictions = make_predictions(([], []), ([WHOLE], [(FOUND, 0.87), (WHOLE, 0.5)]))
    made_by = replace(predictions.provenance, source_crop=source_crop)
    predictions = replace(predictions, provenance=made_by)
    image = np.zeros((1024, 1024), np.float32) if image is None else image
    return draw_entry(find_boxes(predictions, postprocess), entry or Entry(1, ""), image)


def rectangles(svg):
    """Class, x, y, width and height of every rectangle."""
    pattern = r'<rect class="([^"]*)" x="([^"]*)" y="([^"]*)" width="([^"]*)" height="([^"]*)"/>'
    return [(kind, *map(float, numbers)) for kind, *numbers in re.findall(pattern, svg)]


def decode(svg):
    (content,) = re.findall(r'href="data:image/jpeg;base64,([^"]*)"', svg)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


def test_boxes_lie_in_the_pixels_of_the_file():
    assert rectangles(entry_svg()) == [
        ("true", 0, 0, 533.3, 533.3),
        ("found", 512, 256, 256, 512),
        ("found", 0, 0, 533.3, 533.3),
    ]
    cropped = rectangles(entry_svg(source_crop=768))  # 192 pixels show the central 768
    assert cropped[1] == ("found", 512, 320, 192, 384)


def test_found_boxes_are_drawn_as_they_count():
    postprocess = Postprocess(threshold=4.0, nms=1.0, shrink=0.5)  # .87 x 5 counts, .5 x 5 does not
    assert rectangles(entry_svg(postprocess=postprocess))[1:] == [("found", 576, 384, 128, 256)]


def test_the_boxes_that_are_meant_are_marked():
    kinds = [kind for kind, *_ in rectangles(entry_svg(entry=Entry(1, "", (1,), (0,))))]
    assert kinds == ["true marked", "found", "found marked"]


def test_found_boxes_carry_their_scores():
    assert re.findall(r">([^<]*)</text>", entry_svg()) == ["0.87", "0.50"]


def test_the_radiograph_is_reduced_and_keeps_its_shape_and_greys():
    image = np.zeros((800, 1280), np.float32)
    image[:, 640:] = 0.5
    svg = entry_svg(image)
    assert 'viewBox="0 0 1280 800"' in svg
    picture = decode(svg)
    assert picture.shape == (MAX_SIDE * 800 // 1280, MAX_SIDE)
    assert picture[:, :300].max() < 5
    assert picture[:, 340:].mean() == pytest.approx(127.5, abs=2)
    assert decode(entry_svg(np.ones((100, 80), np.float32))).shape == (100, 80)


def test_a_figure_becomes_the_same_text_every_time():
    texts = []
    for _ in range(2):
        figure = new_figure(3, 2)
        figure.subplots().plot([1, 2], [3, 4], label="<b>")
        texts.append(embed_figure(figure, 'a "figure" <b>'))
    assert texts[0] == texts[1]
    assert 'alt="a &quot;figure&quot; &lt;b&gt;"' in texts[0]
    (content,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', texts[0])
    assert b"<svg" in base64.b64decode(content)
