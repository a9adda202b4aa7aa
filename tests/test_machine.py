"""What a process does to its machine and to the processes that it has started."""

import subprocess
import sys

from tests.conftest import HANGS_AFTER
from tests.paths import ROOT

LEAVES_A_WORKER = """
import multiprocessing, signal, time
from src.machine import end_workers_at_exit

def work():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready.set()
    time.sleep(600)

end_workers_at_exit()
fork = multiprocessing.get_context("fork")
ready = fork.Event()
fork.Process(target=work, daemon=True).start()
ready.wait()
"""


def test_a_worker_that_ignores_sigterm_does_not_keep_the_program_from_ending():
    subprocess.run(
        [sys.executable, "-c", LEAVES_A_WORKER], cwd=ROOT, check=True, timeout=HANGS_AFTER
    )
