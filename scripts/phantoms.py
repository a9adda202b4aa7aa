"""Chest phantoms that pass for radiographs: what `make_demo_dataset.py` fills its archive with.

Everything is a sum of attenuations (body - lungs + heart + bones + disease), as in a real film, and
goes through an exposure curve at the end.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from scripts.anatomy import MIDLINE, SCALE, SIZE, Anatomy, Box, Map, fractal_noise, soften
from scripts.opacities import draw_opacities

NOT_NORMAL, NORMAL, OPACITY = "No Lung Opacity / Not Normal", "Normal", "Lung Opacity"
# Of the 26,684 images of stage_2_detailed_class_info.csv.
CLASS_SHARES = {OPACITY: 6012 / 26684, NORMAL: 8851 / 26684, NOT_NORMAL: 11821 / 26684}

ABNORMAL_CAUSES = ("cardiomegaly", "hyperinflation", "nodule", "pacemaker", "scoliosis")


@dataclass(frozen=True)
class Phantom:
    """A finished picture: pixels (1024, 1024) uint8, boxes in its pixels."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    boxes_xywh: list[Box]


def draw_phantom(rng: np.random.Generator, category: str, *, view: str, sex: str) -> Phantom:
    """Draw one chest.

    Args:
        rng: source of every choice.
        category: one of the challenge's three classes.
        view: "PA" (upright) or "AP" (mostly at the bedside).
        sex: "F" or "M".

    Returns:
        The picture; it has boxes exactly if the class is "Lung Opacity".
    """
    portable = view == "AP"
    # A fifth of the pneumonias has a second finding: the class then still is "Lung Opacity".
    abnormal = category == NOT_NORMAL or (category == OPACITY and rng.random() < 0.2)
    cause = str(rng.choice(ABNORMAL_CAUSES)) if abnormal else None
    anatomy = Anatomy(rng, portable=portable, cause=cause)
    lungs = np.maximum(*(anatomy.fill(_lung_outline(anatomy, side)) for side in (-1, 1)))
    heart = _draw_heart(anatomy)

    density = _draw_body(anatomy, sex) - 0.43 * _thickness(lungs, 60)
    density += 0.06 * lungs * _draw_vessels(anatomy, rng)
    density += heart * (0.27 * lungs + 0.05) + _draw_centre(anatomy) + _draw_bones(anatomy, rng)
    density += 0.03 * fractal_noise(rng, (4, 8, 16, 32)) * np.minimum(density + 0.2, 1)
    if cause == "nodule":
        density += _draw_nodule(anatomy, rng)
    boxes: list[Box] = []
    if category == OPACITY:
        opacity, boxes = draw_opacities(rng, lungs, heart)
        density += rng.uniform(0.17, 0.30) * opacity
    if cause == "pacemaker":
        density = _add_pacemaker(anatomy, rng, density)
    if portable and rng.random() < 0.6:
        density += 0.16 * _draw_leads(anatomy, rng)
    return Phantom(_expose(rng, density, portable=portable), boxes)


def _thickness(mask: Map, depth: float) -> Map:
    """Round off a flat shape: thin at its edge, full `depth` half-size pixels inside."""
    distance = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    inside = np.minimum(distance / depth, 1)
    return mask * (0.45 + 0.55 * soften(np.sqrt(inside * (2 - inside)).astype(np.float32), 3))


def _lung_outline(anatomy: Anatomy, side: int) -> np.ndarray:
    """Return the corners of a lung; side -1 is the image's left (the patient's right)."""
    base = 812 + 18 * (side > 0)  # the liver holds the patient's right dome up
    dome = np.array([0, 0, 75, 108, 104, 64]) * anatomy.dome
    profile = [(150, 128), (225, 150), (290, 245), (330, 390), (352, 550), (362, 690)]
    floor = [(366, base), (358, base), (315, base - 5), (215, base + 5), (130, base + 10)]
    floor += [(80, base + 5)]
    inner = [(68, 600), (78, 450), (66, 300), (88, 180)]
    shape = np.array(
        profile + [(u, y - lift) for (u, y), lift in zip(floor, dome, strict=True)] + inner, float
    )
    x = shape[:, 0] * anatomy.lung_width * side + [0.5 * anatomy.midline(y) for y in shape[:, 1]]
    return np.stack([x + 0.5 * MIDLINE, [anatomy.lung_y(y) for y in shape[:, 1]]], axis=1)


def _draw_body(anatomy: Anatomy, sex: str) -> Map:
    """Draw skin, muscle, the shadow below the diaphragm and the breasts."""
    half = [(95, -400), (98, 10), (150, 62), (330, 92), (470, 120), (540, 230), (545, 420)]
    half += [(480, 560), (455, 720), (455, 900), (480, 1500)]
    g = anatomy.girth
    outline = [(MIDLINE + g * u, y) for u, y in half] + [
        (MIDLINE - g * u, y) for u, y in half[::-1]
    ]
    body = _thickness(anatomy.fill(outline, blur=1.2), 70)
    top = anatomy.lung_y(812) - 60 * anatomy.dome
    belly = anatomy.fill([(-200, top), (1224, top), (1224, 1500), (-200, 1500)], blur=28)
    density = (0.5 + 0.1 * (g - 1)) * body + 0.17 * body * belly
    if sex == "F":
        for side in (-1, 1):
            breast = anatomy.ellipse((MIDLINE + side * 235, 690), (165 * g, 150 * g), 0)
            density += 0.06 * anatomy.fill(breast, blur=7)
    return density


def _draw_heart(anatomy: Anatomy) -> Map:
    """Draw the heart, two thirds of it in the image's right half: (512, 512) in 0..1."""
    y = anatomy.lung_y(645)
    size = anatomy.heart
    left = anatomy.ellipse((MIDLINE + 62 * size, y), (122 * size, 168 * min(size, 1.15)), -0.55)
    right = anatomy.ellipse((MIDLINE - 28, y - 10), (82 * size, 130), 0.1)
    heart = np.maximum(anatomy.fill(left, blur=2.5), anatomy.fill(right, blur=2.5))
    return _thickness(heart, 45)


def _draw_centre(anatomy: Anatomy) -> Map:
    """Draw mediastinum, aortic knob, trachea and spine."""
    heights = range(-60, 1100, 40)
    axis = np.array([(anatomy.midline(y), y) for y in heights], float)
    width = np.interp(axis[:, 1], [0, 150, 300, 480, 1000], [60, 66, 74, 84, 90])
    band = np.concatenate([axis - [1, 0] * width[:, None], (axis + [1, 0] * width[:, None])[::-1]])
    density = 0.13 * anatomy.fill(band, blur=5)
    knob = anatomy.ellipse((anatomy.midline(330) + 62, 330), (42, 46), 0)
    density += 0.10 * anatomy.fill(knob, blur=3)
    hila = [(-92, 450, 30), (-105, 510, 26), (96, 430, 30), (104, 480, 24)]
    for u, y, radius in hila:
        blob = anatomy.ellipse(
            (anatomy.midline(y) + u, anatomy.lung_y(y)), (radius, 45), -0.1 * u / 90
        )
        density += 0.07 * anatomy.fill(blob, blur=7)
    windpipe = [(anatomy.midline(y) + 5, y) for y in range(-60, 400, 20)]
    density -= 0.11 * anatomy.stroke([(windpipe, 36)], blur=2.5)
    for y in range(-30, 1100, 62):  # vertebrae: a body with bright end plates, two pedicles
        x = anatomy.midline(y)
        body = [(x - 42, y - 25), (x + 42, y - 25), (x + 42, y + 25), (x - 42, y + 25)]
        density += 0.045 * anatomy.fill(body, blur=1.5, smooth=False)
        pedicles = [([(x + s * 24, y - 6), (x + s * 24, y + 4)], 16) for s in (-1, 1)]
        density += 0.03 * anatomy.stroke(pedicles, blur=1.2)
    return density


def _draw_bones(anatomy: Anatomy, rng: np.random.Generator) -> Map:
    """Draw ribs, clavicles, shoulder blades and the heads of the arms."""
    back, front, collar = [], [], []
    t = np.linspace(0, 1, 16)
    for i in range(10):
        y = 105 + 66 * i + rng.normal(0, 2)
        reach = np.interp(i, [0, 2, 4, 7, 10], [190, 280, 335, 368, 378]) * anatomy.lung_width
        for side in (-1, 1):
            u = 38 + (reach - 38) * np.sin(t * np.pi / 2)
            drop = (40 + 9 * i) * t**2.4 - 30 * np.sin(np.pi * t) * (1 - 0.04 * i)
            x = anatomy.midline(y) + side * u
            back.append((np.stack([x, y + drop], 1), 24.0))
            if 1 < i < 8:
                u = reach - (reach - 150 - 6 * i) * np.sin(t * np.pi / 2)
                drop = 40 + 9 * i + (95 + 8 * i) * t**1.3
                front.append((np.stack([MIDLINE + side * u, y + drop], 1), 28.0))
    for side in (-1, 1):
        u = 45 + 330 * t
        y = 205 - 80 * t - 16 * np.sin(2 * np.pi * t) + rng.normal(0, 8)
        collar.append((np.stack([MIDLINE + side * u, y], 1), 27.0))
    bones = np.zeros((int(SIZE * SCALE),) * 2, np.float32)
    for lines, weight in ((back, 0.105), (front, 0.06), (collar, 0.12)):
        marrow = [(points, width - 9) for points, width in lines]
        bones += weight * (anatomy.stroke(lines, blur=1.1) - 0.4 * anatomy.stroke(marrow, blur=1.4))
    spread = rng.uniform(0, 50)  # with the arms forward the blades leave the lungs
    for side in (-1, 1):
        blade = [
            (u + spread, y) for u, y in [(330, 170), (430, 200), (395, 330), (330, 520), (285, 400)]
        ]
        bones += 0.05 * anatomy.fill([(MIDLINE + side * u, y) for u, y in blade], blur=2)
        arm = anatomy.ellipse(
            (MIDLINE + side * (425 + spread) * min(anatomy.girth, 1), 180), (50, 56), 0
        )
        bones += 0.08 * anatomy.fill(arm, blur=2)
    return bones


def _draw_vessels(anatomy: Anatomy, rng: np.random.Generator) -> Map:
    """Draw the branching vessels that leave the hila: (512, 512), about 0..2."""
    thick, thin = [], []
    for side in (-1, 1):
        for heading in np.linspace(-1.25, 1.45, 9) + rng.normal(0, 0.1, 9):
            start = (anatomy.midline(460) + side * 88, anatomy.lung_y(460 + 50 * heading))
            branches = [(np.array(start), heading, 11.0, 9)]
            while branches:
                point, angle, width, n_steps = branches.pop()
                points = [point]
                for _ in range(n_steps):
                    angle += rng.normal(0, 0.14)
                    step = np.array([side * np.cos(angle), np.sin(angle)])
                    points.append(points[-1] + step * rng.uniform(18, 30))
                    if width > 3 and rng.random() < 0.22:
                        fork = angle + rng.choice([-1, 1]) * rng.uniform(0.35, 0.8)
                        branches.append((points[-1], fork, width * 0.6, 6))
                half = len(points) // 2 + 1
                thick.append((points[:half], width))
                thin.append((points[half - 1 :], width * 0.5))
    return anatomy.stroke(thick, blur=1.5) + 0.7 * anatomy.stroke(thin, blur=1.0)


def _draw_nodule(anatomy: Anatomy, rng: np.random.Generator) -> Map:
    """Draw a small, round, sharp shadow in one lung."""
    side = rng.choice([-1, 1])
    place = (MIDLINE + side * rng.uniform(150, 290), anatomy.lung_y(rng.uniform(260, 640)))
    radius = rng.uniform(17, 30)
    outline = anatomy.ellipse(place, (radius, radius * rng.uniform(0.85, 1.15)), 0.4)
    return np.float32(0.24) * anatomy.fill(outline, blur=1.6)


def _add_pacemaker(anatomy: Anatomy, rng: np.random.Generator, density: Map) -> Map:
    """Put a metal case under a clavicle, its wire running to the heart."""
    side = rng.choice([1, 1, 1, -1])
    x, y = MIDLINE + side * rng.uniform(235, 290), rng.uniform(235, 300)
    case = anatomy.fill(anatomy.ellipse((x, y), (52, 44), 0.3), blur=0.8)
    wire = [(x, y - 30), (x - side * 60, y - 95), (MIDLINE + side * 60, 190), (MIDLINE - 30, 260)]
    wire += [(MIDLINE - 45, 480), (MIDLINE - 20, 640), (MIDLINE + 110, anatomy.lung_y(710))]
    metal = 0.75 * case + 0.5 * anatomy.stroke([(_curve(wire), 6)], blur=0.7)
    return np.maximum(density, metal.astype(np.float32) * 1.3) + 0.1 * metal


def _draw_leads(anatomy: Anatomy, rng: np.random.Generator) -> Map:
    """Draw the wires and electrodes of an ECG."""
    leads, dots = [], []
    for _ in range(rng.integers(1, 4)):
        end = (rng.uniform(180, 850), rng.uniform(180, 800))
        start = (rng.choice([-40, 1064]), rng.uniform(150, 900))
        middle = (rng.uniform(200, 800), rng.uniform(300, 950))
        leads.append((_curve([start, middle, end]), 5.0))
        dots.append(([end, end], 26.0))
    return anatomy.stroke(leads, blur=0.6) + anatomy.stroke(dots, blur=0.8)


def _curve(points: ArrayLike) -> np.ndarray:
    """Return a smooth open line (64, 2) near its control points."""
    line = np.asarray(points, float)
    for _ in range(5):  # Chaikin, the ends kept
        cut = np.stack([0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]], 1)
        line = np.concatenate([line[:1], cut.reshape(-1, 2), line[-1:]])
    return line


def _expose(
    rng: np.random.Generator, density: Map, *, portable: bool
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Turn attenuation into grey values: exposure, contrast, grain, collimator, marker.

    Args:
        density: (512, 512), 0 in air, about 0.1 in a lung and 1 in the spine.
        portable: a bedside film: less contrast, more grain.

    Returns:
        (1024, 1024) grey values.
    """
    full = cv2.resize(density, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    grain = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.7)
    full += rng.uniform(0.015, 0.03) * (1.3 if portable else 1) * grain
    contrast = rng.uniform(3.2, 4.6) if portable else rng.uniform(4.2, 6.0)
    middle = rng.uniform(0.34, 0.5)
    film = 1 / (1 + np.exp(-contrast * (full - middle)))
    black, white = 1 / (1 + np.exp(contrast * (middle + 0.02))), rng.uniform(0.93, 1.0)
    film = np.clip((film - black) / (white - black), 0, 1) ** rng.uniform(0.85, 1.15)
    pixels = np.asarray(film * 255, np.uint8)
    if rng.random() < 0.3:  # the collimator's edge
        for edge in range(4):
            depth = rng.integers(0, 60)
            np.rot90(pixels, edge)[:depth] = rng.integers(0, 12)
    if rng.random() < 0.7:
        corner = (int(rng.integers(890, 960)), int(rng.integers(60, 200)))
        text = "L" if rng.random() < 0.8 else ("AP" if portable else "PA")
        cv2.putText(pixels, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 1.3, 250, 4, cv2.LINE_AA)
    return pixels
