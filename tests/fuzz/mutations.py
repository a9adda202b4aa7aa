"""Damage to the bytes of a file, of the kinds that find mistakes in readers of files."""

import io
import struct
import zipfile
import zlib
from random import Random

N_DAMAGES = (1, 1, 1, 2, 4)  # of one file
END = 300  # bytes
INTEGERS = {"B": 1, "H": 2, "L": 4, "Q": 8}  # unsigned, and their bytes
TOKENS = (
    *(b"", b"\0", b"\xff", b"\xef\xbb\xbf", b'"', b",", b";", b"\n", b"\r", b"\r\n", b" ", b"\t"),
    *(b"0", b"-1", b"1e309", b"-1e309", b"nan", b"inf", b"9" * 400, b"9" * 5000, b"0x10", b"1_0"),
    *(b"1.5e-400", b"\xc2\xb2", b"\xd9\xa3", b"\xed\xa0\x80", b"../x", b"None", b"true", b"{}"),
    *(b"[", b"{" * 2000, b"[" * 100_000, b"%s", b"{0}", b"{x!r}", b"\\ud800", b"\x1a", b"\x0c"),
)


def mutate(content: bytes, other: bytes, random: Random) -> bytes:
    """Return `content` with some damage; parts of `other` may come into it."""
    for _ in range(random.choice(N_DAMAGES)):
        content = random.choice(DAMAGES)(content, other, random)
    return content


def mutate_archive(content: bytes, other: bytes, random: Random) -> bytes:
    """Damage one member of a zip archive, with a checksum that agrees; or else the archive."""
    if random.random() < 0.2:
        return mutate(content, other, random)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(buffer, "w") as damaged:
        names = archive.namelist()
        victim = random.choice(names)
        for name in names:
            member = archive.read(name)
            donor = archive.read(random.choice(names))
            damaged.writestr(name, mutate(member, donor, random) if name == victim else member)
    return buffer.getvalue()


def mutate_end(content: bytes, other: bytes, random: Random) -> bytes:
    """Damage the end of a file that has its index there; or else the file."""
    if random.random() < 0.2:
        return mutate(content, other, random)
    place = max(0, len(content) - END)
    return content[:place] + mutate(content[place:], other[-END:], random)


def mutate_png(content: bytes, other: bytes, random: Random) -> bytes:
    """Damage one chunk of a PNG file, with a checksum that agrees; or else the file."""
    if not content.startswith(b"\x89PNG") or random.random() < 0.2:
        return mutate(content, other, random)
    chunks = []
    place = 8
    while place < len(content):
        (length,) = struct.unpack_from(">L", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    victim = random.randrange(len(chunks))
    damaged = content[:8]
    for i, (kind, data) in enumerate(chunks):
        new = mutate(data, other, random) if i == victim else data
        damaged += struct.pack(">L", len(new)) + kind + new
        damaged += struct.pack(">L", zlib.crc32(kind + new))
    return damaged


def _place(content: bytes, random: Random) -> int:
    """Pick a place; headers, at the start, more often than not."""
    end = len(content) if random.random() < 0.5 else min(len(content), 1000)
    return random.randint(0, end)


def _block(content: bytes, random: Random) -> slice:
    start = _place(content, random)
    return slice(start, start + random.choice([1, 2, 8, 64, 512, len(content)]))


def flip_bits(content: bytes, other: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice([1, 1, 3, 10]) if content else 0):
        place = min(_place(content, random), len(content) - 1)
        changed[place] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut_off(content: bytes, other: bytes, random: Random) -> bytes:
    return content[: _place(content, random)]


def remove(content: bytes, other: bytes, random: Random) -> bytes:
    block = _block(content, random)
    return content[: block.start] + content[block.stop :]


def repeat(content: bytes, other: bytes, random: Random) -> bytes:
    block = _block(content, random)
    n_times = random.choice([2, 2, 5, 50]) if block.stop - block.start < 1000 else 2
    return content[: block.start] + content[block] * n_times + content[block.stop :]


def swap(content: bytes, other: bytes, random: Random) -> bytes:
    first, second = sorted(_place(content, random) for _ in range(2))
    n_bytes = min(random.choice([1, 4, 16, 256]), second - first)
    return b"".join(
        [
            content[:first],
            content[second : second + n_bytes],
            content[first + n_bytes : second],
            content[first : first + n_bytes],
            content[second + n_bytes :],
        ]
    )


def insert_token(content: bytes, other: bytes, random: Random) -> bytes:
    place = _place(content, random)
    n_replaced = random.choice([0, 0, 1, 4])
    return content[:place] + random.choice(TOKENS) + content[place + n_replaced :]


def insert_noise(content: bytes, other: bytes, random: Random) -> bytes:
    place = _place(content, random)
    return content[:place] + random.randbytes(random.choice([1, 4, 100])) + content[place:]


def splice(content: bytes, other: bytes, random: Random) -> bytes:
    place = _place(content, random)
    return content[:place] + other[_block(other, random)] + content[place:]


def set_number(content: bytes, other: bytes, random: Random) -> bytes:
    """Overwrite what may be a length, a count or a size with an extreme."""
    kind = random.choice(list(INTEGERS))
    n_bytes = INTEGERS[kind]
    full = (1 << 8 * n_bytes) - 1
    value = random.choice([0, 1, 2, full, full - 1, full >> 1, (full >> 1) + 1, full >> 4])
    place = max(0, min(_place(content, random), len(content) - n_bytes))
    number = struct.pack(random.choice("<>") + kind, value)
    return content[:place] + number + content[place + n_bytes :]


DAMAGES = [
    flip_bits, cut_off, remove, repeat, swap, insert_token, insert_noise, splice,
    set_number, set_number, set_number,
]  # fmt: skip
