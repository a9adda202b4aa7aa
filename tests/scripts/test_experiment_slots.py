"""Where trainings run side by side, and how long all of them will take."""

import os
from pathlib import Path

import pytest

from scripts.experiment_queue.forecast import Forecast, write_duration
from scripts.experiment_queue.slots import find_gpus, make_slots
from src.experiments.runs import Run

LISTING = """#!/bin/sh
[ "$1" = -L ] || exit 1
echo "GPU 0: NVIDIA H100 (UUID: GPU-1)"
echo "  MIG 1g.10gb Device 0: (UUID: MIG-1)"
echo "GPU 1: NVIDIA H100 (UUID: GPU-2)"
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that puts a program called nvidia-smi on the PATH."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")

    def install(text):
        program = tmp_path / "nvidia-smi"
        program.write_text(text)
        program.chmod(0o755)

    return install


def test_the_gpus_are_those_that_the_driver_lists(machine):
    machine(LISTING)
    assert find_gpus() == ["0", "1"]


def test_a_driver_that_fails_lists_none(machine):
    machine("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert find_gpus() == []


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [("3", ["3"]), ("0, 2", ["0", "2"]), ("GPU-1,GPU-2", ["GPU-1", "GPU-2"]),
     ("", []), ("-1", []), ("1,-1,2", ["1"])],
)  # fmt: skip
def test_a_choice_of_gpus_is_kept(machine, monkeypatch, chosen, gpus):
    machine(LISTING)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert find_gpus() == gpus


def test_each_gpu_is_a_slot():
    slots = make_slots(None, ["0", "3"])
    assert [slot.environment for slot in slots] == [
        {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"},
    ]  # fmt: skip
    assert [slot.name for slot in make_slots(3, ["0", "3"])] == ["GPU 0", "GPU 3", "GPU 0"]
    assert len(make_slots(1, ["0", "3"])) == 1


def test_without_gpus_trainings_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [slot.environment for slot in make_slots(None, [])] == [{}]
    assert [slot.environment for slot in make_slots(3, [])] == 3 * [{"OMP_NUM_THREADS": "2"}]
    assert make_slots(20, [])[0].environment == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert make_slots(3, [])[0].environment == {}


def runs_left(*counts):
    return {Run("demo", fold, "", Path()): count for fold, count in enumerate(counts)}


def test_a_forecast_without_any_time_counts_epochs():
    forecast = Forecast(2)
    forecast.epochs_left = runs_left(4, 8)
    assert str(forecast) == "12 epochs left"


def test_a_forecast_begins_with_the_expected_time():
    forecast = Forecast(2, 600.0)
    forecast.epochs_left = runs_left(6, 6, 12)
    assert str(forecast) == "24 epochs left, about 2 hours"


def test_a_forecast_goes_by_the_epochs_that_were_trained():
    forecast = Forecast(1, 600.0)
    forecast.epochs_left = runs_left(10)
    forecast.add(1, 10.0)
    forecast.add(3, 50.0)
    assert str(forecast) == "10 epochs left, about 2 minutes"


def test_a_forecast_takes_no_training_apart():
    forecast = Forecast(8, 60.0)
    forecast.epochs_left = runs_left(16, 2)
    assert str(forecast) == "18 epochs left, about 16 minutes"


def test_nothing_left_takes_no_time():
    assert str(Forecast(1, 60.0)) == "0 epochs left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 seconds"), (119, "119 seconds"), (120, "2 minutes"), (7199, "120 minutes"),
     (7200, "2 hours"), (9 * 86400, "216 hours")],
)  # fmt: skip
def test_a_duration_has_the_largest_unit_of_which_there_are_two(seconds, text):
    assert write_duration(seconds) == text
