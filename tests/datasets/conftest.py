"""A data folder of the challenge's form with small images, made once."""

import cv2
import numpy as np
import pytest

from tests.dicom_files import write_challenge_dicom, write_dicom

N_TRAIN, N_TEST = 88, 5
IMAGE_SIZE = 128
LANDSCAPE = "p03"  # 300 x 500, uncompressed; its box is the right half
LANDSCAPE_SIZE = (300, 500)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Make a stage 2 folder: black images with a white box in every second one.

    Patients are p00, p01, ...; the odd ones have a box. One image is not square.
    """
    folder = tmp_path_factory.mktemp("data")
    train_dir, test_dir = folder / "stage_2_train_images", folder / "stage_2_test_images"
    train_dir.mkdir()
    test_dir.mkdir()
    rng = np.random.default_rng(7)
    labels, classes = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    for i in range(N_TRAIN):
        patient = f"p{i:02}"
        size = LANDSCAPE_SIZE if patient == LANDSCAPE else (IMAGE_SIZE, IMAGE_SIZE)
        pixels = cv2.GaussianBlur(rng.integers(0, 90, size).astype(np.uint8), (0, 0), 1)
        if i % 2:
            x, y = (2 * rng.integers(18, 28, 2)).tolist()
            w, h = (2 * rng.integers(12, 20, 2)).tolist()
            if patient == LANDSCAPE:
                x, y, w, h = 250, 0, 250, 300
            pixels[y : y + h, x : x + w] = 255
            labels.append(f"{patient},{x}.0,{y}.0,{w}.0,{h}.0,1")
            classes.append(f"{patient},Lung Opacity")
        else:
            labels.append(f"{patient},,,,,0")
            classes.append(f"{patient},{'Normal' if i % 4 else 'No Lung Opacity / Not Normal'}")
        write = write_dicom if patient == LANDSCAPE else write_challenge_dicom
        write(train_dir / f"{patient}.dcm", pixels)
    for i in range(N_TEST):
        pixels = rng.integers(0, 255, (IMAGE_SIZE, IMAGE_SIZE)).astype(np.uint8)
        write_challenge_dicom(test_dir / f"t{i}.dcm", pixels)
    for name, lines in (("train_labels", labels), ("detailed_class_info", classes)):
        (folder / f"stage_2_{name}.csv").write_text("\n".join(lines) + "\n")
    return folder
