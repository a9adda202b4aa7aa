import io
import struct
import zipfile

import numpy as np
import pytest

from src.system.array_files import read_arrays
from src.system.errors import InputError


def array_file(path, *, header=None, content=None, compression=zipfile.ZIP_DEFLATED):
    """Write an .npz file with one array, `values`; its parts may lie."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(6))
    whole = buffer.getvalue()
    if header is not None:
        text = f"{header} ".encode().ljust(117) + b"\n"
        whole = whole[:8] + struct.pack("<H", len(text)) + text + whole[-48:]
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("values.npy", whole if content is None else content)
    return path


def declare(shape, kind):
    return {"descr": kind, "fortran_order": False, "shape": shape}


def read_values(path):
    return read_arrays(path, ["values"], "test", InputError)["values"]


def test_read_arrays_gives_what_numpy_wrote(tmp_path):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", values=np.arange(6.0).reshape(2, 3), more=np.zeros(1))
        np.testing.assert_array_equal(read_values(tmp_path / "a.npz"), [[0, 1, 2], [3, 4, 5]])
    assert read_values(array_file(tmp_path / "b.npz", header=declare((6,), "<i8"))).tolist() == [
        *range(6)
    ]


@pytest.mark.parametrize(
    ("parts", "cause"),
    [
        ({"header": declare((7,), "<i8")}, "fewer bytes than its shape (7,) needs"),
        ({"header": declare((10**13, 4), "<i8")}, "fewer bytes than its shape"),
        ({"header": declare((10**10,), "<U0")}, "fewer bytes than its shape"),
        ({"header": declare((2,), "<U500000000")}, "fewer bytes than its shape"),
        ({"header": declare((6,), "|O")}, "Object arrays cannot be loaded"),
        ({"header": declare((-1, -6), "<i8")}, ""),
        ({"content": b""}, "EOF"),
        ({"content": b"\x93NUMPY\x09\0"}, "(9, 0)"),
        ({"content": bytes(2**26 + 10**7)}, "inflates to 77108864 bytes"),
        ({"compression": zipfile.ZIP_BZIP2}, "compressed in another way"),
        ({"compression": zipfile.ZIP_LZMA}, "compressed in another way"),
    ],
)
def test_read_arrays_refuses_what_its_bytes_cannot_hold(tmp_path, parts, cause):
    path = array_file(tmp_path / "a.npz", **parts)
    with pytest.raises(InputError) as caught:
        read_values(path)
    assert str(caught.value).startswith(f"{path}: not a test file: ")
    assert cause in str(caught.value)
