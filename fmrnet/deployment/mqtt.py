"""Verdicts to an MQTT broker.

    fmrnet/LINE/verdict   the final verdicts, in order; the last one is retained
    fmrnet/LINE/first     the early exit's verdict on each picture, as it is given; it is not repeated
    fmrnet/LINE/state     "online", or "offline" once the node has ended or died (last will); retained

Payloads are the JSON of `verdicts/`. Quality of service 1: after an interruption a verdict may come a second time, with
the same number. While there is no broker, final verdicts wait on the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from fmrnet.errors import ConfigError

if TYPE_CHECKING:
    from fmrnet.deployment.node import EdgeNode
    from fmrnet.deployment.verdict import Verdict

__all__ = ["Publisher", "publisher"]

PORT = 1883
KEEPALIVE = 10  # seconds after which the broker takes a silent node for dead, one and a half times
ACKNOWLEDGED = 5.0  # seconds to wait for the broker's word before a verdict is sent again
LONGEST_PAUSE = 30  # seconds between two tries to connect


class Publisher:
    """Publishes the verdicts of a line.

    Parameters
    ----------
    host, port : of the broker; it may come later.
    line : str
    """

    def __init__(self, host: str, port: int, line: str) -> None:
        from paho.mqtt import client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        self.name = f"mqtt {host}:{port}"
        self._topic = f"fmrnet/{line}"
        self._connected = threading.Event()
        self._success = paho.MQTT_ERR_SUCCESS
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.will_set(f"{self._topic}/state", "offline", qos=1, retain=True)
        self._client.reconnect_delay_set(1, LONGEST_PAUSE)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *told: self._connected.clear()
        self._client.connect_async(host, port, KEEPALIVE)
        self._client.loop_start()

    def first(self, verdict: Verdict) -> None:
        """As `fmrnet.deployment.node.Listener`."""
        if self._connected.is_set():
            self._client.publish(f"{self._topic}/first", verdict.to_json(), qos=1)

    def final(self, verdict: Verdict) -> bool:
        """As `fmrnet.deployment.node.Listener`: whether the broker has acknowledged it."""
        if not self._connected.is_set():
            return False
        told = self._client.publish(f"{self._topic}/verdict", verdict.to_json(), qos=1, retain=True)
        if told.rc != self._success:
            return False
        told.wait_for_publish(ACKNOWLEDGED)
        return told.is_published()

    def close(self) -> None:
        """Say goodbye, if there is somebody."""
        if self._connected.is_set():
            self._client.publish(f"{self._topic}/state", "offline", qos=1, retain=True).wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: object, data: object, flags: object, reason: object, properties: object
    ) -> None:
        if not getattr(reason, "is_failure", False):
            self._client.publish(f"{self._topic}/state", "online", qos=1, retain=True)
            self._connected.set()


def publisher(address: str) -> Callable[[EdgeNode], Publisher]:
    """What makes a Publisher for a node, from HOST:PORT or HOST.

    Raises
    ------
    ConfigError
        If the address is none.
    ModuleNotFoundError
        If paho-mqtt is not installed.
    """
    host, _, port = address.rpartition(":") if ":" in address else (address, "", str(PORT))
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--mqtt {address}: expected HOST:PORT, such as broker.example:{PORT}")
    try:
        import paho.mqtt.client  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError(
            "--mqtt needs paho-mqtt, which is not installed; run pip install 'fmrnet[mqtt]'"
        ) from None
    return lambda node: Publisher(host.strip("[]"), int(port), node.line)
