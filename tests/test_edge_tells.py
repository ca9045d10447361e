"""What a node tells others: a real MQTT broker, OPC UA clients; and the whole line as programs."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from broker import Subscriber, free_port, line_of
from lines import until, write, write_model, written

from fmrnet.deployment import mqtt, opcua
from fmrnet.deployment.node import EdgeNode
from fmrnet.errors import ConfigError

NODE_OPCUA = Path(
    os.environ.get("FMRNET_NODE_OPCUA", "build/node-opcua")
)  # where npm has put node-opcua-client


@pytest.fixture(scope="module")
def line_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("line") / "tiny.fmr")


def test_a_broker_hears_every_final_verdict_in_order(line_model, tmp_path):
    (tmp_path / "in").mkdir()
    with line_of(tmp_path) as (broker, subscriber):
        listeners = [mqtt.publisher(f"127.0.0.1:{broker.port}")]
        with EdgeNode(
            line_model, tmp_path / "out", watch=tmp_path / "in", line="A", device="cpu", listeners=listeners
        ) as node:
            until(lambda: subscriber.heard["state"] == ["online"])
            for seed in range(4):
                write(tmp_path / "in" / f"{seed}.png", seed)
                until(lambda seed=seed: len(subscriber.heard["first"]) > seed)
            until(lambda: len(subscriber.heard["verdict"]) == 4)
            broker.kill()
            for seed in (4, 5):
                write(tmp_path / "in" / f"{seed}.png", seed)
            until(lambda: node.state()["totals"]["pictures"] == 6 and node.state()["totals"]["open"] == 0)
            broker.start()
            until(lambda: set(subscriber.numbers("verdict")) == {1, 2, 3, 4, 5, 6})
        until(lambda: subscriber.heard["state"][-1] == "offline")
        assert subscriber.numbers("first") == [
            1,
            2,
            3,
            4,
        ]  # those of the time without a broker are not repeated
        once = list(dict.fromkeys(subscriber.heard["verdict"]))
        assert [json.loads(text) for text in once] == written(tmp_path / "out")
        late = Subscriber(broker.port, "A")
        until(lambda: late.heard["verdict"])
        assert (late.numbers("verdict"), late.heard["state"]) == (
            [6],
            ["offline"],
        )  # the last one is retained
        late.close()


@pytest.mark.parametrize("address", ["", "host:", "host:x", ":1", "host:99999"])
def test_an_address_that_is_none(address):
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        mqtt.publisher(address)


def test_the_extras_are_not_imported_before_they_are_used():
    for path in Path(mqtt.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {
                "paho",
                "asyncua",
                "zstandard",
                "watchdog",
            }, path


BROWSED = {
    "VisionStateMachine/CurrentState": "Operational",
    "VisionStateMachine/AutomaticModeStateMachine/CurrentState": "ContinuousExecution",
    "SystemState": 1,
    "ResultManagement/Results/Latest/PartId": "1.png",
    "ResultManagement/Results/Latest/IsPartial": False,
    "ResultManagement/Results/First/IsPartial": True,
    "Counters/Pictures": 2,
    "Counters/DecidedByEarlyExit": 1,
    "Counters/DecidedByNode": 1,
}


@pytest.mark.slow
def test_opc_ua_clients_see_state_results_and_counters(line_model, tmp_path):
    from asyncua import Client, ua

    (tmp_path / "in").mkdir()

    async def look(port: int) -> list[tuple[str, bool]]:
        events: list[tuple[str, bool]] = []

        class Handler:
            def event_notification(self, event: object) -> None:
                events.append((event.PartId, event.IsPartial))

        async with Client(f"opc.tcp://127.0.0.1:{port}/fmrnet") as client:
            space = await client.get_namespace_index(opcua.NAMESPACE)
            system = await client.nodes.objects.get_child(f"{space}:VisionSystem")
            kind = await client.nodes.base_event_type.get_child(f"{space}:ResultReadyEventType")
            subscription = await client.create_subscription(50, Handler())
            await subscription.subscribe_events(system, kind)
            for seed in (0, 1):
                write(tmp_path / "in" / f"{seed}.png", seed)
                await asyncio.sleep(2)
            await asyncio.sleep(2)
            for name, expected in BROWSED.items():
                found = await system.get_child([f"{space}:{part}" for part in name.split("/")])
                assert await found.read_value() == expected, name
            with pytest.raises(ua.UaStatusCodeError):
                await found.write_value(7)
        return events

    with EdgeNode(
        line_model,
        tmp_path / "out",
        watch=tmp_path / "in",
        line="A",
        device="cpu",
        listeners=[opcua.server(0)],
    ) as node:
        (server,) = node._listeners
        with ThreadPoolExecutor(1) as thread:  # in this one a browser of other tests may have a loop running
            told = thread.submit(lambda: asyncio.run(look(server.port))).result()
        assert told == [
            ("0.png", True),
            ("0.png", False),
            ("1.png", True),
            ("1.png", False),
        ]
        seen = by_another_stack(server.port)
        if seen is not None:
            assert seen == {
                name: value for name, value in BROWSED.items() if not name.startswith("Counters")
            } | {name: str(value) for name, value in BROWSED.items() if name.startswith("Counters")}


SCRIPT = """
const { OPCUAClient, makeBrowsePath, AttributeIds } = require("node-opcua-client");
(async () => {
  const client = OPCUAClient.create({ endpointMustExist: false });
  await client.connect(process.argv[2]);
  const session = await client.createSession();
  const space = (await session.readNamespaceArray()).indexOf("urn:fmrnet:edge");
  const found = {};
  for (const name of JSON.parse(process.argv[3])) {
    const path = "/" + ["VisionSystem", ...name.split("/")].map((part) => `${space}:${part}`).join("/");
    const node = (await session.translateBrowsePath(makeBrowsePath("ObjectsFolder", path))).targets[0].targetId;
    const value = (await session.read({ nodeId: node, attributeId: AttributeIds.Value })).value.value;
    found[name] = Array.isArray(value) ? String(value[1]) : value;
  }
  console.log(JSON.stringify(found));
  await session.close();
  await client.disconnect();
})();
"""


def by_another_stack(port: int) -> dict[str, object] | None:
    """The same values by node-opcua, a client of other people's; None where it is not installed."""
    if not (NODE_OPCUA / "node_modules").is_dir() or shutil.which("node") is None:
        return None
    arguments = ["node", "-", f"opc.tcp://127.0.0.1:{port}/fmrnet", json.dumps(list(BROWSED))]
    run = subprocess.run(
        arguments, input=SCRIPT, capture_output=True, text=True, cwd=NODE_OPCUA, timeout=60, check=True
    )
    found: dict[str, object] = json.loads(next(line for line in run.stdout.splitlines() if line[:1] == "{"))
    return found


@pytest.mark.slow
def test_the_line_as_programs(line_model, tmp_path):
    """`fmrnet serve` and `fmrnet edge`, with a token, a broker, and each of them killed once."""

    def fmrnet(*arguments: object) -> subprocess.Popen[bytes]:
        with open(tmp_path / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "fmrnet", *map(str, arguments)],
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def kill(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    (tmp_path / "in").mkdir()
    (tmp_path / "token").write_text("a token of sixteen or more".replace(" ", "-") + "\n")
    port = free_port()
    serving = ("serve", line_model, "--port", port, "--token-file", tmp_path / "token", "--device", "cpu")
    with line_of(tmp_path) as (broker, subscriber):
        beside = (
            *("edge", line_model, "--watch", tmp_path / "in", "--out", tmp_path / "out", "--line", "A"),
            *("--cloud", f"http://127.0.0.1:{port}", "--token-file", tmp_path / "token", "--device", "cpu"),
            *("--mqtt", f"127.0.0.1:{broker.port}", "--deadline", 120),
        )
        cloud, edge = fmrnet(*serving), fmrnet(*beside)
        try:
            until(lambda: subscriber.heard["state"] == ["online"], 60)
            for seed in range(4):
                write(tmp_path / "in" / f"{seed}.png", seed)
            until(lambda: len(subscriber.heard["verdict"]) == 4, 60)
            kill(cloud)
            kill(edge)
            until(lambda: subscriber.heard["state"][-1] == "offline", 30)  # the last will
            write(tmp_path / "in" / "4.png", 5)
            edge = fmrnet(*beside)
            until(lambda: 5 in subscriber.numbers("first"), 60)
            assert written(tmp_path / "out")[4]["decided_by"] is None
            cloud = fmrnet(*serving)
            until(lambda: 5 in subscriber.numbers("verdict"), 90)
            edge.send_signal(signal.SIGTERM)
            assert edge.wait(30) == 143
        finally:
            kill(cloud)
            kill(edge)
        assert list(dict.fromkeys(subscriber.numbers("verdict"))) == [1, 2, 3, 4, 5]
        decided = [one["decided_by"] for one in written(tmp_path / "out")]
        assert decided == ["early exit", "cloud", "early exit", "cloud", "cloud"]
