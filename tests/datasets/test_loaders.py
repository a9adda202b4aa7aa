import errno
import multiprocessing
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from src.datasets.detection_dataset import Sample
from src.datasets.loaders import (
    N_DEBUG_TRAIN,
    N_DEBUG_VALID,
    load_labelled_images,
    training_loader,
    unlabelled_loader,
    validation_loader,
)
from src.datasets.sample_options import SampleOptions
from src.datasets.tables import AnnotationsError
from src.datasets.test_dataset import TestDataset
from src.radiographs.image_index import ImageFile
from src.structures import Target
from src.system.errors import InputError
from tests.conftest import HANGS_AFTER
from tests.datasets.conftest import LANDSCAPE, LANDSCAPE_SIZE, N_TEST, N_TRAIN
from tests.dicom_files import write_dicom
from tests.image_folders import image_files
from tests.paths import ROOT

CPU = torch.device("cpu")
OPTIONS = SampleOptions(img_size=32, augmentation_level=20, hflip=True, seed=3)


def read_epochs(images, n_workers, n_epochs):
    """Return the batches of each epoch."""
    loader, sampler = training_loader(
        images, OPTIONS, batch_size=16, n_workers=n_workers, device=CPU
    )
    epochs = []
    for epoch in range(n_epochs):
        sampler.epoch = epoch
        epochs.append(list(loader))
    return epochs


def assert_same_batch(batch, other):
    assert batch.ids == other.ids
    assert batch.images.dtype == other.images.dtype
    assert torch.equal(batch.images, other.images)
    for target, other_target in zip(batch.targets, other.targets, strict=True):
        assert torch.equal(target.boxes_xyxy, other_target.boxes_xyxy)
        assert target.category == other_target.category


@pytest.fixture(scope="module")
def reference(data_dir):
    """Return two epochs, made in this process from the files."""
    return read_epochs(load_labelled_images(data_dir, 0, debug=True), 0, 2)


@pytest.fixture(scope="module")
def cached_images(data_dir, tmp_path_factory):
    cache_dir = tmp_path_factory.mktemp("cache")
    return load_labelled_images(data_dir, 0, debug=True, cache_dir=cache_dir)


# load_labelled_images


def test_load_labelled_images_parts_the_folds(data_dir):
    folds = [load_labelled_images(data_dir, fold) for fold in range(4)]
    for images in folds:
        train, valid = ({r.patient_id for r in part} for part in (images.train, images.valid))
        assert not train & valid
        assert len(train | valid) == N_TRAIN
    assert len({r.patient_id for images in folds for r in images.valid}) == N_TRAIN


def test_load_labelled_images_keeps_a_few_for_debugging(data_dir):
    images = load_labelled_images(data_dir, 1)
    few = load_labelled_images(data_dir, 1, debug=True)
    assert (len(few.train), len(few.valid)) == (N_DEBUG_TRAIN, N_DEBUG_VALID) == (32, 16)
    assert {r.patient_id for r in few.train} < {r.patient_id for r in images.train}
    assert {r.patient_id for r in few.valid} < {r.patient_id for r in images.valid}


def test_load_labelled_images_takes_the_folders_folds(data_dir, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data_dir, copy)
    lines = [f"p{i:02},{int(i >= 4)}" for i in range(N_TRAIN)]
    (copy / "folds.csv").write_text("\n".join(["patientId,fold", *lines]))
    images = load_labelled_images(copy, 0)
    assert [record.patient_id for record in images.valid] == ["p00", "p01", "p02", "p03"]


@pytest.mark.parametrize("part", ["train", "valid"])
def test_load_labelled_images_refuses_a_missing_image(data_dir, tmp_path, part):
    copy = tmp_path / "data"
    shutil.copytree(data_dir, copy)
    patient = getattr(load_labelled_images(copy, 0), part)[-1].patient_id
    (copy / "stage_2_train_images" / f"{patient}.dcm").unlink()
    with pytest.raises(InputError, match=rf"{patient}\.dcm: no such file"):
        load_labelled_images(copy, 0)


def test_load_labelled_images_refuses_an_unknown_fold(data_dir):
    with pytest.raises(AnnotationsError, match="fold 4 has no images"):
        load_labelled_images(data_dir, 4)


def test_load_labelled_images_refuses_a_missing_folder(tmp_path):
    with pytest.raises(AnnotationsError, match="no such data folder"):
        load_labelled_images(tmp_path / "none", 0)


# Loaders


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine has
@pytest.mark.parametrize(
    ("cached", "n_workers"), [(False, 1), (False, 3), (True, 0), (True, 1), (True, 3)]
)
def test_training_loader_gives_the_same_batches_from_workers_and_cache(
    data_dir, reference, cached_images, cached, n_workers
):
    images = cached_images if cached else load_labelled_images(data_dir, 0, debug=True)
    for epoch, other in zip(reference, read_epochs(images, n_workers, 2), strict=True):
        for batch, other_batch in zip(epoch, other, strict=True):
            assert_same_batch(batch, other_batch)


def test_training_loader_sends_8_bits_where_all_images_have_them(reference):
    assert {batch.images.dtype for epoch in reference for batch in epoch} == {torch.uint8}


def test_training_loader_shows_each_image_once_in_another_order(data_dir):
    images = load_labelled_images(data_dir, 0, debug=True)
    first, second = (
        [i for batch in epoch for i in batch.ids] for epoch in read_epochs(images, 0, 2)
    )
    assert sorted(first) == sorted(second) == [record.patient_id for record in images.train]
    assert first != second


def test_training_loader_gives_whole_batches(data_dir):
    images = load_labelled_images(data_dir, 0)
    loader, _ = training_loader(images, OPTIONS, batch_size=5, n_workers=0, device=CPU)
    sizes = [len(batch.ids) for batch in loader]
    assert sizes == [5] * (len(images.train) // 5)
    assert len(loader) == len(sizes)


def test_training_loader_gives_one_batch_of_a_small_set(data_dir):
    images = load_labelled_images(data_dir, 0, debug=True)
    loader, _ = training_loader(images, OPTIONS, batch_size=64, n_workers=0, device=CPU)
    assert [len(batch.ids) for batch in loader] == [N_DEBUG_TRAIN]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_validation_loader_shows_every_image_in_order(data_dir, n_workers):
    images = load_labelled_images(data_dir, 0)
    loader = validation_loader(images, OPTIONS, batch_size=5, n_workers=n_workers, device=CPU)
    batches = list(loader)
    ids = [patient for batch in batches for patient in batch.ids]
    assert ids == [record.patient_id for record in images.valid]
    assert len(ids) % 5  # the last batch is not whole, and there
    assert batches[0].images.shape == (5, 1, 32, 32)


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_no_worker_can_be_stopped_while_it_starts(data_dir):
    """A signal goes to all processes of a training; the main one decides what comes of it."""
    images = load_labelled_images(data_dir, 0)
    batches = iter(validation_loader(images, OPTIONS, batch_size=5, n_workers=1, device=CPU))
    next(batches)
    (worker,) = multiprocessing.active_children()
    status = Path(f"/proc/{worker.pid}/status").read_text()
    (mask,) = re.findall(r"SigBlk:\s*(\w+)", status)
    blocked = int(mask, 16)  # since before it was forked
    assert all(blocked >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM))
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), "this process hears them"


def test_validation_loader_takes_landscapes(data_dir):
    (fold,) = [
        images
        for images in (load_labelled_images(data_dir, fold) for fold in range(4))
        if LANDSCAPE in [record.patient_id for record in images.valid]
    ]
    loader = validation_loader(fold, OPTIONS, batch_size=64, n_workers=0, device=CPU)
    (batch,) = loader
    sizes = dict(zip(batch.ids, batch.file_sizes, strict=True))
    assert sizes[LANDSCAPE] == LANDSCAPE_SIZE
    assert set(sizes.values()) == {LANDSCAPE_SIZE, (128, 128)}


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_broken_image_ends_a_command_in_one_line(tmp_path, n_workers):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((8, 8), np.uint8))
    path.write_bytes(path.read_bytes()[:-40])
    command = (
        "import torch",
        "from pathlib import Path",
        "from src.datasets.sample_options import SampleOptions",
        "from src.radiographs.image_files import ImageFile",
        "from src.datasets.loaders import unlabelled_loader",
        "from src.datasets.test_dataset import TestDataset",
        "from src.system.command_line import report_errors",
        "with report_errors():",
        f"    files = [ImageFile('a', Path({str(path)!r}))]",
        "    data = TestDataset(files, SampleOptions(img_size=8))",
        f"    workers, cpu = {n_workers}, torch.device('cpu')",
        "    for _ in unlabelled_loader(data, batch_size=1, n_workers=workers, device=cpu):",
        "        pass",
    )
    outcome = subprocess.run(
        [sys.executable, "-c", "\n".join(command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
    )
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: {path}: ")
    assert "truncated" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert "Traceback" not in outcome.stderr


def test_unlabelled_loader_shows_every_image_in_order(data_dir):
    paths = image_files(data_dir / "stage_2_test_images")
    dataset = TestDataset(paths, OPTIONS)
    batches = list(unlabelled_loader(dataset, batch_size=2, n_workers=0, device=CPU))
    assert [batch.ids for batch in batches] == [("t0", "t1"), ("t2", "t3"), ("t4",)]
    assert sum(len(batch.targets) for batch in batches) == N_TEST


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc's malloc")
def test_prepared_processes_keep_the_memory_of_arrays(run_command):
    code = """
import resource
import numpy as np
from src.datasets.loaders import prepare_process
prepare_process()
def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(1 << 20, np.uint8) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([count_faults() for _ in range(6)][-1])
"""
    assert int(run_command("-c", code, cwd=ROOT).out) < 100  # of 2,048 pages


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine has
@pytest.mark.parametrize(
    ("device", "n_cores", "expected"),
    [("cpu", 1, 1), ("cpu", 2, 1), ("cpu", 6, 3), ("cpu", 64, 8), ("cuda", 4, 4), ("cuda", 64, 8)],
)
def test_loaders_choose_workers_by_device(data_dir, monkeypatch, device, n_cores, expected):
    monkeypatch.setattr("os.cpu_count", lambda: n_cores)
    images = load_labelled_images(data_dir, 0, debug=True)
    loader = validation_loader(
        images, OPTIONS, batch_size=4, n_workers=None, device=torch.device(device)
    )
    assert loader.num_workers == expected
    assert loader.pin_memory == (device == "cuda")


LEAVE_A_WORKER = """
import sys, torch
from pathlib import Path
from src.datasets.sample_options import SampleOptions
from tests.image_folders import image_files
from src.datasets.loaders import unlabelled_loader
from src.datasets.test_dataset import TestDataset
dataset = TestDataset(image_files(Path(sys.argv[1])), SampleOptions(img_size=32))
kept = iter(unlabelled_loader(dataset, batch_size=1, n_workers=1, device=torch.device("cpu")))
next(kept)
"""


def test_a_program_ends_though_an_error_keeps_its_loader(data_dir):
    command = [sys.executable, "-c", LEAVE_A_WORKER, str(data_dir / "stage_2_test_images")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS_AFTER)
    assert (result.returncode, result.stderr) == (0, "")


LIMIT_SHARED_MEMORY = """
import resource, sys, torch
from pathlib import Path
from src.datasets.sample_options import SampleOptions
from tests.image_folders import image_files
from src.datasets.loaders import unlabelled_loader
from src.datasets.test_dataset import TestDataset
from src.system.command_line import report_errors
dataset = TestDataset(image_files(Path(sys.argv[1])), SampleOptions(img_size=32))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # bytes; /dev/shm is made of files
with report_errors():
    next(iter(unlabelled_loader(dataset, batch_size=1, n_workers=1, device=torch.device("cpu"))))
"""


def test_a_batch_that_shared_memory_cannot_hold_ends_in_one_line(data_dir):
    command = [sys.executable, "-c", LIMIT_SHARED_MEMORY, str(data_dir / "stage_2_test_images")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS_AFTER)
    assert result.returncode == 2
    assert result.stderr.startswith("error: shared memory (/dev/shm) cannot hold a batch: ")
    assert result.stderr.endswith(" or --num-workers 0\n")


@pytest.mark.parametrize("n_workers", [0, 2])
def test_odd_images_are_counted_in_one_warning(tmp_path, n_workers):
    ramp = np.tile(np.arange(0, 64, dtype=np.uint8), (64, 1))
    for name, pixels in (("a", ramp * 4), ("b", ramp), ("c", ramp)):
        write_dicom(tmp_path / f"{name}.dcm", pixels)
    files = [ImageFile(name, tmp_path / f"{name}.dcm") for name in "abc"]
    dataset = TestDataset(files, SampleOptions(img_size=32))
    loader = unlabelled_loader(dataset, batch_size=1, n_workers=n_workers, device=CPU)
    with pytest.warns(UserWarning, match=r"odd grey values in 2 files, .*b\.dcm") as caught:
        assert len(list(loader)) == 3
        assert len(list(loader)) == 3  # the next epoch warns no more
    assert len(caught) == 1


class DeadlyDataset(Dataset):
    """One of its samples kills the process that makes it, as the system does without memory."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return Sample(torch.zeros(1, 8, 8), Target(torch.zeros(0, 4), 0), f"p{index}", (8, 8))


def test_a_worker_that_is_killed_ends_in_one_line_where_a_batch_is_asked_for():
    loader = unlabelled_loader(DeadlyDataset(), batch_size=4, n_workers=2, device=CPU)
    seen = []
    with pytest.raises(InputError, match="a process that prepares batches is lost") as caught:
        seen += [batch.ids for batch in loader]
    assert len(str(caught.value).splitlines()) == 1
    assert "--num-workers" in str(caught.value)


@pytest.mark.parametrize(
    "error", [EOFError(), ConnectionResetError("reset"), OSError("got end of file during message")]
)
def test_a_worker_that_is_lost_while_its_batch_is_received_ends_in_one_line(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("multiprocessing.connection.answer_challenge", fail)
    loader = unlabelled_loader(DeadlyDataset(), batch_size=4, n_workers=1, device=CPU)
    with pytest.raises(InputError, match=rf"is lost: .*\({str(error) or 'EOFError'}\); fewer"):
        next(iter(loader))


@pytest.mark.parametrize("n_workers", [0, 1])
@pytest.mark.parametrize("kind", [RuntimeError, EOFError, OSError])
def test_an_error_of_our_own_keeps_its_traceback(kind, n_workers):
    class Faulty(DeadlyDataset):
        def __getitem__(self, index):
            raise kind("DataLoader worker (pid 1) is a name of ours")

    loader = unlabelled_loader(Faulty(), batch_size=4, n_workers=n_workers, device=CPU)
    with pytest.raises(kind, match="a name of ours") as caught:
        next(iter(loader))
    in_main = any(entry.name == "__getitem__" for entry in caught.traceback)
    assert in_main or "in __getitem__" in str(caught.value)


def test_shared_memory_that_cannot_be_written_ends_in_one_line(monkeypatch):
    def refuse():
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("multiprocessing.Lock", refuse)
    loader = unlabelled_loader(DeadlyDataset(), batch_size=4, n_workers=1, device=CPU)
    with pytest.raises(InputError, match=r"cannot be started: Read-only .*--num-workers 0"):
        next(iter(loader))
    loader = unlabelled_loader(DeadlyDataset(), batch_size=4, n_workers=0, device=CPU)
    assert next(iter(loader)).ids == ("p0", "p1", "p2", "p3")
