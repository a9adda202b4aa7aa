import bz2
import gzip
import lzma
import os
import resource
import zipfile
from pathlib import Path

import pytest

from src.datasets.tables import AnnotationsError, read_sample_ids, read_table
from src.system import csv_files
from src.system.files import MAX_TABLE_BYTES
from tests.paths import SHARED

TABLE = b"patientId,PredictionString\na,0.5 0 0 100 100\nb,\n"


def make_zip(content):
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("a.csv", content)
    return Path("a.zip").read_bytes()


@pytest.mark.parametrize(
    ("ending", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zip", make_zip)],
)
def test_a_compressed_table_is_not_inflated(tmp_path, monkeypatch, ending, compress):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"labels.csv{ending}"
    path.write_bytes(compress(TABLE))
    with pytest.raises(AnnotationsError, match=r"labels\.csv.*: "):
        read_table(path, ["patientId"])


def test_a_table_is_read_whatever_its_name_is(tmp_path):
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(TABLE)
    assert read_sample_ids(path) == ["a", "b"]


def test_a_table_is_read_up_to_a_size(tmp_path, monkeypatch):
    path = tmp_path / "labels.csv"
    path.write_bytes(TABLE)
    monkeypatch.setattr(csv_files, "MAX_TABLE_BYTES", len(TABLE) - 1)
    with pytest.raises(AnnotationsError, match=rf"labels\.csv: {len(TABLE)} bytes; at most"):
        read_table(path, ["patientId"])


def test_a_huge_table_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "labels.csv"
    path.touch()
    os.truncate(path, 2**40)  # a hole, without any bytes on the disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AnnotationsError, match="at most"):
        read_table(path, ["patientId"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # kilobytes


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        (b"patientId;fold", "the cells are separated by semicolons; save it with commas"),
        (b"patientId\tfold\tx;y", "the cells are separated by "),
        (b"patientId\tfold", "the cells are separated by tabs; save it with commas"),
        (b"patient,fold;x", "has no column patientId, fold; it has patient, fold;x"),
    ],
)
def test_a_table_of_other_columns_is_told_what_it_has(tmp_path, header, cause):
    path = tmp_path / "folds.csv"
    path.write_bytes(header + b"\na;1,5\n")
    with pytest.raises(AnnotationsError) as caught:
        read_table(path, ["patientId", "fold"])
    assert str(caught.value).startswith(f"{path}: {cause}")


@pytest.mark.skipif(not SHARED.exists(), reason="needs the challenge's label files")
def test_the_limit_leaves_room_for_the_challenge():
    largest = max(path.stat().st_size for path in (SHARED / "annotations").iterdir())
    assert 10 * largest < MAX_TABLE_BYTES
