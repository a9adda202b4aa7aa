"""Train, score, predict, look: the command line of the project.

python src/train_runner.py --action train --model se_resnext101_dr0.75_512 --fold 0
python src/train_runner.py --action check_metric --model se_resnext101_dr0.75_512 --fold 0
python src/train_runner.py --action generate_predictions --split test ...
python src/train_runner.py --action test_model ...
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import config
from src.actions.flags import Flags, parse_flags
from src.system.command_line import report_errors


def main() -> None:
    flags = parse_flags(data_dir=config.DATA_DIR, output_dir=config.OUTPUT_DIR)
    with report_errors():
        act(flags)


def act(flags: Flags) -> None:
    """Import what the flags ask for, and do it; before that, `--help` would wait for it."""
    from src.actions.resolve import check_models
    from src.system.processes import tune_process

    check_models(flags)
    tune_process()  # before PyTorch is imported
    if flags.list_models:
        from src.actions.list_models import list_models

        list_models()
    elif flags.action == "train":
        from src.actions.train import train

        train(flags, encoder_weights_dir=config.WEIGHTS_DIR)
    elif flags.action == "check_metric":
        from src.actions.check_metric import check_metric

        check_metric(flags)
    elif flags.action == "generate_predictions":
        from src.actions.generate_predictions import generate_predictions

        generate_predictions(flags, downloads_dir=config.WEIGHTS_DIR)
    elif flags.action == "test_model":
        from src.actions.test_model import test_model

        test_model(flags, downloads_dir=config.WEIGHTS_DIR)
    else:
        from src.actions.check_data import check_data

        check_data(flags)


if __name__ == "__main__":
    main()
