"""Ways from an edge to a cloud on which things go wrong: a proxy for everybody, a network of its own for root."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import socket
import subprocess
import threading
import time
from typing import Protocol

__all__ = ["Link", "Proxy", "Wire", "enter"]

CLONE_NEWNET = 0x40000000
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


class Link(Protocol):
    """A way to a port.

    Attributes
    ----------
    modes : tuple of str
        What may go wrong.
    url : str
        Its near end.
    namespace : str, or None
        Where the far end is to listen, at every address; None: here.
    """

    modes: tuple[str, ...]
    url: str
    namespace: str | None

    def become(self, mode: str) -> None:
        """From now on it goes "well", or wrong in that way."""

    def close(self) -> None:
        """Take it away."""


class Proxy:
    """Carries bytes over two connections, or breaks off, falls silent, loses a second or dawdles."""

    modes = ("refused", "cut", "half-open", "loss", "delay")
    namespace = None

    def __init__(self, port: int) -> None:
        self.port, self.mode = port, "well"
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def become(self, mode: str) -> None:
        self.mode = mode

    def close(self) -> None:
        self._ends.set()
        self._listening.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        self._listening.settimeout(0.1)
        while not self._ends.is_set():
            try:
                near, _ = self._listening.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            thread = threading.Thread(target=self._carry, args=(near,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, near: socket.socket) -> None:
        with near:
            if self.mode == "refused":
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.port), 1)
            except OSError:
                return
            with far:
                carried = 0
                while not self._ends.is_set():
                    if self.mode == "half-open":  # nothing comes, nothing is said
                        self._ends.wait(0.05)
                        continue
                    try:
                        ready, _, _ = select.select([near, far], [], [], 0.1)
                        for end in ready:
                            data = end.recv(4096)
                            if not data:
                                return
                            carried += len(data)
                            if self.mode == "cut" and carried > 3000:
                                return
                            if self.mode == "delay":
                                time.sleep(0.15)
                            elif (
                                self.mode == "loss" and hash(data) % 10 < 3
                            ):  # it is sent again a little later
                                time.sleep(1.0)
                            (far if end is near else near).sendall(data)
                    except OSError:
                        return


class Wire:
    """A network namespace at the end of a virtual cable: packets are lost, the cable is pulled or is a thin one.

    Raises OSError where that cannot be had: it takes root, iproute2 and nftables.
    """

    modes = ("refused", "cut", "half-open", "loss", "delay")

    def __init__(self, port: int) -> None:
        self.namespace = f"fmrnet{os.getpid()}"
        self._near, far = f"fmr{os.getpid()}a", f"fmr{os.getpid()}b"
        here, there = "198.18.7.1", "198.18.7.2"  # of the block that is for tests of networks
        self.url = f"http://{there}:{port}"
        self._port = port
        _run("ip", "netns", "add", self.namespace)
        try:
            _run(
                "ip", "link", "add", self._near, "type", "veth", "peer", "name", far, "netns", self.namespace
            )
            _run("ip", "address", "add", f"{here}/30", "dev", self._near)
            _run("ip", "link", "set", self._near, "up")
            _run("ip", "-n", self.namespace, "address", "add", f"{there}/30", "dev", far)
            for one in ("lo", far):
                _run("ip", "-n", self.namespace, "link", "set", one, "up")
            self._rules("add table inet faults")
            self._rules("add chain inet faults arriving { type filter hook input priority 0 ; }")
            _run("tc", "-V")
        except OSError:
            self.close()
            raise

    def become(self, mode: str) -> None:
        self._rules("flush chain inet faults arriving")
        _run("ip", "link", "set", self._near, "down" if mode == "cut" else "up")
        _run("tc", "qdisc", "replace", "dev", self._near, "root", "pfifo")
        if mode == "delay":  # 30 kB are a quarter of a second
            limits = ("rate", "1mbit", "burst", "4kb", "latency", "3s")
            _run("tc", "qdisc", "replace", "dev", self._near, "root", "tbf", *limits)
        rules = {
            "refused": f"tcp dport {self._port} reject with tcp reset",
            "half-open": "drop",
            "loss": "numgen random mod 100 < 30 drop",
        }
        if mode in rules:
            self._rules(f"add rule inet faults arriving {rules[mode]}")

    def close(self) -> None:
        _run("ip", "netns", "delete", self.namespace)

    def _rules(self, command: str) -> None:
        _run("ip", "netns", "exec", self.namespace, "nft", command)


def enter(namespace: str | None) -> None:
    """Have this process, which must have one thread, see the network of a namespace."""
    if namespace is not None:
        handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns", namespace)
        os.close(handle)


def _run(*command: str) -> None:
    found = shutil.which(command[0], path=PATH)
    if found is None:
        raise FileNotFoundError(f"{command[0]} is not installed")
    done = subprocess.run(
        [found, *command[1:]], capture_output=True, text=True, env=os.environ | {"PATH": PATH}
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr}")
