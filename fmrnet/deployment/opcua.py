"""An OPC UA server with the state of a node, its job, its last results and its counters.

Browse names are those of OPC 40100-1 (Machine Vision) where that has one for it; `docs/edge.md` has the table. The
types are plain objects and variables in a namespace of our own, as no part of the companion specification travels
with this package. Whoever connects may read and subscribe, and write nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fmrnet.errors import ConfigError

if TYPE_CHECKING:
    from fmrnet.deployment.node import EdgeNode
    from fmrnet.deployment.verdict import Verdict

__all__ = ["NAMESPACE", "Server", "server"]

NAMESPACE = "urn:fmrnet:edge"
START = 60.0  # seconds that the standard's own address space may take to load
ANSWER = 5.0  # seconds for which the server may be busy
TICK = 0.5  # seconds between two looks at state and counters
PRODUCING, DOWN = 1, 5  # of SystemState: PRD, and UDT, an unscheduled down time
COUNTERS = {
    "Pictures": "pictures",
    "Open": "open",
    "Defective": "defective",
    "Good": "good",
    "Unreadable": "unreadable",
    "DecidedByEarlyExit": "early exit",
    "DecidedByCloud": "cloud",
    "DecidedByNode": "node",
    "DecidedByDeadline": "deadline",
    "DecidedByDisk": "disk",
    "DecidedByRefusal": "refused",
}


class Server:
    """Serves a node, in a thread with an event loop of its own.

    Raises
    ------
    ConfigError
        If the port is taken.

    Attributes
    ----------
    port : int
        The one that it listens on, also where 0 was asked for.
    """

    name = "opcua"

    def __init__(self, node: EdgeNode, port: int) -> None:
        self._node = node
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="opcua", daemon=True)
        self._thread.start()
        self._variables: dict[str, Any] = {}
        self._known: dict[str, Any] = {}
        self._closing = False
        try:
            self.port: int = self._run(self._start(port), START)
        except OSError as error:
            self._end()
            raise ConfigError(
                f"--opcua {port} cannot be listened on: {error.strerror}; name another"
            ) from error
        self._watching = asyncio.run_coroutine_threadsafe(self._follow(), self._loop)

    def first(self, verdict: Verdict) -> None:
        """As `fmrnet.deployment.node.Listener`."""
        asyncio.run_coroutine_threadsafe(self._tell("First", verdict), self._loop)

    def final(self, verdict: Verdict) -> bool:
        """As `fmrnet.deployment.node.Listener`."""
        self._run(self._tell("Latest", verdict))
        return True

    def close(self) -> None:
        """Say that the node has halted, and stop."""
        self._closing = True
        self._watching.result(ANSWER)
        self._run(self._set("VisionStateMachine.CurrentState", "Halted"))
        self._run(self._server.stop())
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any], seconds: float = ANSWER) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    async def _start(self, port: int) -> int:
        from asyncua import ua
        from asyncua.server.server import Server as UaServer
        from asyncua.ua.object_ids import ObjectIds

        self._server = UaServer()
        await self._server.init()
        self._server.set_endpoint(f"opc.tcp://0.0.0.0:{port}/fmrnet")
        self._server.set_server_name(f"FMR-Net, line {self._node.line}")
        self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = await self._server.register_namespace(NAMESPACE)
        system = await self._server.nodes.objects.add_object(space, "VisionSystem")
        text, number, time = ua.VariantType.String, ua.VariantType.Int64, ua.VariantType.DateTime
        result = {
            "ResultId": text,
            "PartId": text,
            "JobId": text,
            "InternalConfigurationId": text,
            "CreationTime": time,
            "IsPartial": ua.VariantType.Boolean,
            "IsSimulated": ua.VariantType.Boolean,
            "ResultState": ua.VariantType.Int32,
            "ResultContent": text,
        }
        tree = {
            "VisionStateMachine": {
                "CurrentState": text,
                "AutomaticModeStateMachine": {"CurrentState": text},
            },
            "SystemState": ua.VariantType.Int32,
            "ConfigurationManagement": {"ActiveConfiguration": text},
            "ResultManagement": {"Results": {"Latest": result, "First": result}},
            "Counters": dict.fromkeys(COUNTERS, number),
        }

        async def grow(parent: Any, branch: dict[str, Any], prefix: str) -> None:
            for name, kind in branch.items():
                if isinstance(kind, dict):
                    await grow(await parent.add_object(space, name), kind, f"{prefix}{name}.")
                else:
                    variant = ua.Variant(ua.get_default_value(kind), kind)
                    self._variables[prefix + name] = await parent.add_variable(space, name, variant)

        await grow(system, tree, "")
        kind = await self._server.create_custom_event_type(
            space, "ResultReadyEventType", ObjectIds.BaseEventType, list(result.items())
        )
        self._events = await self._server.get_event_generator(kind, system.nodeid)
        await self._set("VisionStateMachine.AutomaticModeStateMachine.CurrentState", "ContinuousExecution")
        await self._set("ConfigurationManagement.ActiveConfiguration", self._node.model)
        await self._server.start()
        serving: Any = self._server.bserver
        return int(serving._server.sockets[0].getsockname()[1])

    async def _follow(self) -> None:
        """Keep state and counters as they are."""
        while not self._closing:
            troubles = self._node.troubles()
            await self._set("VisionStateMachine.CurrentState", "Error" if troubles else "Operational")
            await self._set("SystemState", DOWN if troubles else PRODUCING)
            totals = self._node.store.totals()
            for name, what in COUNTERS.items():
                await self._set(f"Counters.{name}", totals.get(what, 0))
            await asyncio.sleep(TICK)

    async def _tell(self, which: str, verdict: Verdict) -> None:
        values = {
            "ResultId": verdict.request,
            "PartId": verdict.picture,
            "JobId": f"{verdict.line}-{verdict.number}",
            "InternalConfigurationId": verdict.model,
            "CreationTime": datetime.fromisoformat(verdict.time).replace(tzinfo=None),
            "IsPartial": which == "First",
            "IsSimulated": False,
            "ResultState": 0 if verdict.defective is not None else -1,
            "ResultContent": verdict.to_json(),
        }
        for name, value in values.items():
            await self._set(f"ResultManagement.Results.{which}.{name}", value)
            setattr(self._events.event, name, value)
        await self._events.trigger(message=f"picture {verdict.number} is {verdict.word}")

    async def _set(self, name: str, value: Any) -> None:
        if self._known.get(name) == value:
            return
        variable = self._variables[name]
        await variable.write_value(value, await variable.read_data_type_as_variant_type())
        self._known[name] = value


def server(port: int) -> Callable[[EdgeNode], Server]:
    """What makes a Server for a node; ModuleNotFoundError if asyncua is not installed."""
    import asyncua  # noqa: F401  (whether it is installed is said before a node starts)

    logging.getLogger("asyncua").setLevel(logging.ERROR)  # it warns that there is no encryption
    return lambda node: Server(node, port)
