"""A Ray cluster for a test: two machines of one core each, as Ray sees them, in processes that end with it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

MACHINES = ("127.0.0.2", "127.0.0.3")  # of loopback; 127.0.0.1 Ray takes for the machine's address outside
MEMORY = 80 * 2**20  # of each object store, bytes; Ray takes no less


class Cluster:
    """Two workers; what runs on them talks over loopback alone, and Ray shows and tells nobody anything."""

    programs = str(Path(sys.executable).parent)

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))  # a short path, for sockets lie below it
        self.address = f"{MACHINES[0]}:{free_port(MACHINES[0])}"
        self.env = os.environ | {
            "FMRNET_BACKEND": "eager",
            "OMP_NUM_THREADS": "1",
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._log = open(self.folder / "log", "w")  # noqa: SIM115 - closed by `close`
        self._started: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Start both machines."""
        port = self.address.rpartition(":")[2]
        head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.folder}")
        for machine, options in zip(MACHINES, (head, (f"--address={self.address}",))):
            self._start(f"--node-ip-address={machine}", *options)

    def run(self, *command: str) -> subprocess.Popen[str]:
        """A Python program that uses the cluster, given as after `python`; it ends with the cluster at the latest."""
        process = subprocess.Popen(
            [sys.executable, *command],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            text=True,
        )
        self._started.append(process)
        return process

    def workers(self, name: str) -> list[psutil.Process]:
        """The processes on the machines that Ray calls by a name."""
        found = []
        for process in self._processes():
            try:
                if name in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def log(self) -> str:
        """What all programs said."""
        return (self.folder / "log").read_text()

    def close(self) -> None:
        """End everything."""
        every = self._processes()
        for process in reversed(self._started):
            process.terminate()
        for process in self._started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in every:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(every, 10)
        self._log.close()
        shutil.rmtree(self.folder)

    def _start(self, *options: str) -> None:
        program = str(Path(self.programs, "ray"))
        common = ("--num-cpus=1", "--num-gpus=0", f"--object-store-memory={MEMORY}")
        process = self.run(program, "start", "--block", "--disable-usage-stats", *common, *options)
        before = self.log().count("Ray runtime started")
        end = time.monotonic() + 120
        while self.log().count("Ray runtime started") == before:
            assert process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in self._started:
            try:
                found += psutil.Process(process.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                continue
        return found


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster, for a while."""
    found = Cluster()
    try:
        found.start()
        yield found
    finally:
        found.close()


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens at."""
    with socket.create_server((address, 0)) as listening:
        return int(listening.getsockname()[1])
