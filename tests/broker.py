"""A real broker for tests, which may be killed, and somebody who listens to it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lines import until

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Broker:
    """mosquitto, which remembers what it retains."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.settings = folder / "mosquitto.conf"
        self.settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\nuser root\n"
        )
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([str(MOSQUITTO), "-c", self.settings], stderr=subprocess.DEVNULL)
        until(self.answers)

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Subscriber:
    """Whoever listens to a line."""

    def __init__(self, port: int, line: str) -> None:
        from paho.mqtt import client as paho

        self.heard: dict[str, list[str]] = {"verdict": [], "first": [], "state": []}
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=f"line {id(self)}", clean_session=False
        )
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda *told: self.client.subscribe(f"fmrnet/{line}/#", qos=1)
        self.client.on_message = lambda client, data, message: self.heard[
            message.topic.split("/")[-1]
        ].append(message.payload.decode())
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def numbers(self, topic: str) -> list[int]:
        return [json.loads(text)["number"] for text in self.heard[topic]]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def line_of(tmp_path: Path) -> Iterator[tuple[Broker, Subscriber]]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    broker = Broker(tmp_path)
    subscriber = Subscriber(broker.port, "A")
    try:
        yield broker, subscriber
    finally:
        subscriber.close()
        broker.kill()
