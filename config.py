"""Where data, pretrained weights and output live; each can be moved by an environment variable."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# The unpacked archive of the challenge: stage_2_train_images/, stage_2_train_labels.csv, ...
DATA_DIR = Path(os.environ.get("PNEUMONIA_DATA_DIR", ROOT / "data"))

# A folder for each run: checkpoints, history, predictions, scores, pictures.
OUTPUT_DIR = Path(os.environ.get("PNEUMONIA_OUTPUT_DIR", ROOT / "output"))

# Downloaded ImageNet weights of the encoders.
WEIGHTS_DIR = Path(os.environ.get("PNEUMONIA_WEIGHTS_DIR", ROOT / "weights"))
