"""A small CSV file takes neither gigabytes nor minutes, whoever reads it."""

import time

import pytest

from scripts.label_sources import read_label_table
from src.datasets.tables import read_table
from src.experiments.history import read_history
from src.system.csv_files import MAX_COLUMNS, read_csv_bytes
from src.system.errors import InputError
from src.visualizations.plot_groups import read_groups

NAMES = ",".join(f"c{i}" for i in range(MAX_COLUMNS))
SPARSE = NAMES + "\n1" * 500_000
READERS = {
    "labels": lambda path: read_table(path, ["patientId"]),
    "history": lambda path: read_history(path, ["loss"]),
    "groups": lambda path: read_groups(path, "n"),
    "other labels": lambda path: read_label_table(path, {"patientId": "c1"}),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (SPARSE, "500001 rows of 1000 columns in 1004889 bytes: most cells are missing"),
        (SPARSE.replace("\n", "\r"), "500001 rows of 1000 columns"),
        ("a," * 200_000 + "a\n", "200001 columns; at most 1000 are read"),
        ("a\n" + "," * 3000 + "\n1" * 100_000, "3001 columns; at most 1000 are read"),
        ('"\n"' + "," * 3000 + "\n1", "3001 columns; at most 1000 are read"),
        ("a\n" + "x" * 2**20 + "," * 3000 + "\n1", "not a readable CSV file: field larger"),
        (("x" * 90_000 + ",") * 12 + "," * 3000 + "\n1", "its first two lines have more than"),
    ],
)
def test_a_table_much_larger_than_its_file_is_refused(tmp_path, read, text, cause):
    path = tmp_path / "a.csv"
    path.write_text(text, newline="")
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        read(path)
    assert time.process_time() - start < 2
    assert str(caught.value).startswith(f"{path}: {cause}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n",
        NAMES + "\n1,2\n",
        "a,b,c\n1\n" + "\n" * 9000,
        "a,b\r\n" * 10,
        "a,b\n" * 2**20,
        NAMES + ('\n"' + "no change\n" * 60 + '"') * 300,  # 18,000 lines
    ],
)
def test_usual_tables_are_read(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text, newline="")
    assert read_csv_bytes(path, InputError) == path.read_bytes()
