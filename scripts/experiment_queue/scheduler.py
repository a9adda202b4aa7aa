"""Runs jobs side by side: starts what is not done, tells how far it is, stops all when asked."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from scripts.experiment_queue.forecast import Forecast
from scripts.experiment_queue.jobs import Command, Job
from scripts.experiment_queue.slots import Slot
from src.experiments.runs import Run
from src.system.errors import InputError, Interrupted
from src.system.files import OutputError
from src.system.folder_lock import locked_dir
from src.system.processes import StopRequest
from src.system.records import MAX_CAUSE, cut_text

POLL_SECONDS = 0.5
FOLDER = "queue"  # in the folder of all runs; holds a folder for each job
LOG_NAME = "log.txt"
BUSY = "runs this in another queue"
LOG_END = 4096  # bytes of a log that are searched for its last line


class JobError(InputError):
    """A job that is not done."""


class Scheduler:
    """A queue of jobs at work."""

    def __init__(self, jobs: Sequence[Job], slots: Sequence[Slot], forecast: Forecast) -> None:
        """Prepare; nothing is started.

        Args:
            forecast: knows what is left, and is kept up to date.
        """
        self._slots, self._forecast = slots, forecast
        self._waiting = deque(jobs)
        self._put_off: set[Run] = set()  # another process held them
        self._request = StopRequest()

    def run(self) -> None:
        """Run all jobs; one that fails is told, and the others go on.

        Raises:
            Interrupted: on Ctrl-C or SIGTERM, after all trainings have saved their state.
        """
        with self._request as request:
            asyncio.run(self._fill_slots())
        if request.received is not None:
            stop = request.received
            raise Interrupted(f"stopped by {stop.name}; the same command goes on from there", stop)

    async def _fill_slots(self) -> None:
        await asyncio.gather(*map(self._work, self._slots))

    async def _work(self, slot: Slot) -> None:
        """Run one job after the other in a slot."""
        while self._waiting and not self._request():
            job = self._waiting.popleft()
            try:
                await self._run_job(job, slot)
            except (InputError, OSError) as error:
                self._give_up(job, error)

    def _give_up(self, job: Job, error: Exception) -> None:
        self._forecast.epochs_left.pop(job.run, None)
        print(f"{job.run.name}: not done: {error}", flush=True)

    async def _run_job(self, job: Job, slot: Slot) -> None:
        """Run a job, unless another queue is at it: then put it off once.

        Raises:
            JobError: it is not done.
            OutputError: the other queue is still at it, or the job's folder cannot be written.
        """
        folder = _folder_of(job)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked_dir(folder, BUSY))
            except OutputError:
                if job.run in self._put_off:
                    raise
                self._put_off.add(job.run)
                self._waiting.append(job)
                return
            await self._run_commands(job, slot, folder / LOG_NAME)

    async def _run_commands(self, job: Job, slot: Slot, log_path: Path) -> None:
        """Run what is left to do of a job.

        Raises:
            JobError: a command fails, or epochs are left.
        """
        commands = job.commands_left()
        begins = f"begins on {slot.name}" if commands else "is done already"
        print(f"{job.run.name}: {begins}", flush=True)
        for command in commands:
            await self._execute(command, job, slot, log_path)
            if self._request():
                return
        progress = job.find_progress()
        if progress.n_left:
            raise JobError(f"ended after {progress}")
        self._forecast.epochs_left.pop(job.run, None)
        if commands:
            print(f"{job.run.name}: done; {self._forecast}", flush=True)

    async def _execute(self, command: Command, job: Job, slot: Slot, log_path: Path) -> None:
        """Run a command, its output in the job's log, and watch it.

        Raises:
            JobError: it fails, and nobody asked it to stop.
        """
        with log_path.open("ab") as log:  # it grows in place, and nothing reads it back
            log.write(os.fsencode(f"\n$ {shlex.join(command)}\n"))
            log.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | slot.environment,
                process_group=0,  # Ctrl-C reaches this process alone, which passes it on
            )
        try:
            code = await self._watch(process, job)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if code and not self._request():
            raise JobError(f"{_reason(code, log_path)}; its log is {log_path}")

    async def _watch(self, process: subprocess.Popen[bytes], job: Job) -> int:
        """Tell each epoch that is done, and pass on the wish to stop, until a process ends.

        Returns:
            Its exit code.
        """
        known, since, asked = job.find_progress(), time.monotonic(), False
        while True:
            code = process.poll()  # before the look at its files: the last epoch counts too
            progress = job.find_progress()
            if progress.n_done > known.n_done:
                now = time.monotonic()
                self._forecast.add(progress.n_done - known.n_done, now - since)
                known, since = progress, now
                self._forecast.epochs_left[job.run] = progress.n_left
                print(f"{job.run.name}: {progress}; {self._forecast}", flush=True)
            if code is not None:
                return code
            if self._request.received is not None and not asked:
                process.send_signal(self._request.received)
                asked = True
            await asyncio.sleep(POLL_SECONDS)


def _folder_of(job: Job) -> Path:
    return job.run.output_dir / FOLDER / job.run.name


def _reason(code: int, log_path: Path) -> str:
    """Say why a command failed: by its exit code and the last line of its log."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    with log_path.open("rb") as log:
        log.seek(max(0, log_path.stat().st_size - LOG_END))
        lines = re.split(r"[\r\n]+", log.read().decode(errors="replace").strip())
    return f"exit code {code}: {cut_text(lines[-1], MAX_CAUSE)}"
