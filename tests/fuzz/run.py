"""Read thousands of broken files, and show what came of it; command line.

    python tests/fuzz/run.py --inputs 2000 --seed 0

Each input is a sound file with some damage, the same for the same seed. A reader may accept it or
refuse it with its declared error, an InputError that names the file. Anything else ends the run:
another error, a crash, a minute without an answer. The input that did it is then kept.
"""

import argparse
import faulthandler
import logging
import resource
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from random import Random

if __name__ == "__main__":  # run by path: find `src` and `tests` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from src.system.errors import InputError
from tests.fuzz.readers import READERS, Reader

SECONDS = 60  # for one input, after which it counts as hanging
MEMORY = 4 << 30  # bytes above those at the start, at which the process may get no more
ROW = "{:24} {:>8} {:>8} {:>8} {:>10} {:>8}"


@dataclass
class Counts:
    """What came of the inputs of one reader."""

    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    slowest: float = 0.0  # seconds of CPU time
    memory: int = 0  # most bytes above those at the start


def fuzz(reader: Reader, n_inputs: int, seed: int, folder: Path) -> Counts:
    """Read `n_inputs` broken files; the one that is read lies in `folder` meanwhile."""
    seeds = list(reader.seeds(folder))
    path = folder / reader.name
    for content in seeds:  # what is loaded and kept at the first call counts for none
        path.write_bytes(content)
        _read(reader, path)
    random, counts = Random(seed), Counts()
    before = _forget_peak()
    for _ in range(n_inputs if seeds else 0):
        path.write_bytes(reader.mutate(random.choice(seeds), random.choice(seeds), random))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        start = time.process_time()
        is_accepted = _read(reader, path)
        counts.slowest = max(counts.slowest, time.process_time() - start)
        faulthandler.cancel_dump_traceback_later()
        counts.inputs += 1
        counts.accepted += is_accepted
        counts.refused += not is_accepted
    counts.memory = _peak() - before
    return counts


def _read(reader: Reader, path: Path) -> bool:
    """Return whether a file is accepted."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(path)
    except InputError as error:
        assert str(path) in str(error), f"a message that does not name its file: {error}"
        causes: BaseException | None = error
        while causes is not None:
            assert not isinstance(causes, MemoryError), "the memory of this process was exhausted"
            causes = causes.__cause__ or causes.__context__
        return False
    return True


def _status(name: str) -> int:
    """Return a number of bytes that Linux tells of this process; 0 elsewhere."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name)), 0)


def _peak() -> int:
    return _status("VmHWM:")


def _forget_peak() -> int:
    """Let the peak of memory begin anew, and return what is in use."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _limit_memory() -> None:
    in_use = _status("VmSize:")
    if in_use:
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1000, help="of each reader (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of all damage (0)")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    arguments = parser.parse_args()
    faulthandler.enable()
    logging.disable()
    _limit_memory()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(f"the file that is read lies in {folder}", file=sys.stderr)
    print(ROW.format("reader", "inputs", "refused", "accepted", "slowest ms", "peak MB"))
    start = time.perf_counter()
    for name in arguments.readers:
        counts = fuzz(READERS[name], arguments.inputs, arguments.seed, folder)
        slowest, memory = f"{1000 * counts.slowest:.0f}", f"{counts.memory / 2**20:.0f}"
        row = ROW.format(name, counts.inputs, counts.refused, counts.accepted, slowest, memory)
        print(row, flush=True)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
