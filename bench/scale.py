"""What one machine serves: a prediction for thousands of edges, and how near it comes to a measured run.

python bench/scale.py MODEL --engine onnxruntime    # measures, predicts, writes results/scale.json and scale.html
python bench/scale.py                               # the page anew, from results/scale.json

In turn the server is asked for the times of its requests, and by 50 edges at some load, which is predicted from the
times before and after it, with pictures that come at the same moments. Clients and server share the machine: leave each
a core, for near what a server can do a twentieth more of computing is twice the waiting.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import rows
from edges import Server, Site, arrivals, simulate
from load import Running, Times, run, running
from numpy.typing import NDArray
from PIL import Image

import fmrnet
from fmrnet.deployment.compress import lossless
from fmrnet.pages.render import write_page

RESULTS = Path(__file__).parent / "results"
EDGES = 50
BUSY = 15  # of them: 60 requests at once, for which a queue of 64 has room
LOADS = (0.5, 0.7, 1.5)  # of what the server can do
SIDES = (256, 512, 1024)  # pixels of the square pictures that the pixel level is timed on
CAMERA = {"pictures": 1.0, "unsettled": 0.05}  # a second; the share that goes up
BEST = 10.0  # seconds within which 99 of 100 unsettled pictures are to have the pixel level
OWN = "simulated_with_its_own_times"
FULLEST = 0.9  # of what a machine can do
FIGURES = {
    "mean": "mean",
    "p50": "half within",
    "p95": "95 of 100 within",
    "refused": "told to come again",
}
AGREEMENT = (
    "{edges} edges, by the package's own way up, asked a server on this machine, and the same pictures came at the "
    "same moments in the simulation. With the times of computing of that very run the figure that is farthest off "
    "differs by {own}: this is how true the simulation is. With times from before and after the run it is {predicted}: "
    "others computed on this machine meanwhile, and a few hundredths more of computing are much more of waiting."
)
STEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1)


def picture(side: int, channels: int) -> bytes:
    """A rough surface, as lossless as it goes up."""
    noise = np.random.default_rng(0).normal(120, 8, (side, side, channels)).clip(0, 255).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise.squeeze()).save(encoded, "PNG")
    return lossless(encoded.getvalue(), 8)


def together(times: list[Times]) -> Server:
    """A server with the times of several runs."""
    return Server(*(np.concatenate([getattr(one, name) for one in times]) for name in ("service", "rest")))


def compared(server: Running, sent: bytes, seconds: float) -> tuple[list[dict[str, Any]], Server]:
    """Measured runs and their predictions, and a server with all times of the runs between them."""
    full = Site(EDGES, 1.0)
    _, times = run(server, full, [(0.0, 0)] * 20, sent, "first")
    each = float(times.service.mean())
    calm, calmer = Site(EDGES, 0.3 / each / EDGES), round(seconds / 4 / each)

    shares: list[float] = []

    def usual(number: int) -> Times:
        """The times of requests: of computing where one follows the other, of the rest where nobody waits."""
        coming = [(0.0, edge % BUSY) for edge in range(calmer)]
        found, times = run(server, full, coming, sent, f"full-{number}")
        between = max(found.latency) / calmer / times.service.mean()  # what passes from one to the next, too
        _, quiet = run(server, calm, arrivals(calm, seconds / 4, 100 + number), sent, f"calm-{number}")
        shares.append(between)
        return Times(times.service * between, quiet.rest)

    between, found = [usual(0)], []
    for number, load in enumerate(LOADS):
        site = Site(EDGES, load / float(between[-1].service.mean()) / EDGES)
        coming = arrivals(site, seconds, number)
        measured, times = run(server, site, coming, sent, f"load-{number}")
        between.append(usual(number + 1))
        predicted = simulate(together(between[-2:]), site, coming, number)
        own = Server(times.service * np.mean(shares[-2:]), times.rest, in_order=True)
        found.append(
            {
                "load": load,
                "edges": EDGES,
                "seconds_of_computing": [float(one.service.mean()) for one in between[-2:]],
                "measured": measured.figures(),
                "predicted": predicted.figures(),
                "simulated_with_its_own_times": simulate(own, site, coming, number).figures(),
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found, together(between)


def by_size(server: Running, channels: int) -> dict[str, dict[str, float]]:
    """Seconds of computing for larger pictures, and their bytes, asked one after the other."""
    found = {}
    for side in SIDES:
        sent = picture(side, channels)
        uplink = server.uplink("sizes")
        for number in range(5):
            uplink.ask(f"{side}-{number}", sent, 0.05)
        uplink.close()
        time.sleep(0.2)  # the last line of the log follows the answer
        logged = server.logged()
        seconds = [logged[f"{side}-{number}"][1] for number in range(1, 5)]
        found[str(side)] = {"seconds": float(np.median(seconds)), "bytes": len(sent)}
    return found


def sweep(spread: NDArray[np.float64], rest: NDArray[np.float64], mean: float) -> list[dict[str, float]]:
    """Figures of one machine by how many edges it serves; `spread` is of the times of computing, around 1."""
    server = Server(spread * mean, rest)
    each = CAMERA["pictures"] * CAMERA["unsettled"]
    found = []
    for step in STEPS:
        edges = max(1, round(step / (mean * each)))
        site = Site(edges, each)
        found.append(
            {
                "edges": edges,
                "load": step,
                **simulate(server, site, arrivals(site, 4000 * mean, 7), 7).figures(),
            }
        )
    return found


def measure(model: Path, engine: str, side: int, seconds: float) -> dict[str, Any]:
    """Everything that the page shows."""
    channels = fmrnet.load(model, "cpu", engine=engine).config.image_channels
    with running(model, engine) as server:
        runs, times = compared(server, picture(side, channels), seconds)
        sizes = by_size(server, channels)
    spread = times.service / times.service.mean()
    return {
        **record.record(),
        "load_average": os.getloadavg()[0],  # with the server's own
        "model": model.name,
        "engine": engine,
        "side": side,
        "seconds": {
            "computing": {"mean": float(times.service.mean()), "deviation": float(times.service.std())},
            "rest": {"mean": float(times.rest.mean()), "median": float(np.median(times.rest))},
        },
        "runs": runs,
        "sizes": sizes,
        "camera": CAMERA,
        "sweep": sweep(spread, times.rest, sizes["512"]["seconds"]),
    }


def machines(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What may serve: this machine, as measured, and a GPU of which the engine's time alone was."""
    gpu = json.loads((RESULTS / "edge-gpu-timing.json").read_text())
    rest = np.full(1, found["seconds"]["rest"]["median"])
    engine_alone = {
        name.split()[1].partition("x")[0]: part["seconds"]["pixel level"]["median"]
        for name, part in gpu["parts"].items()
        if name in ("cuda 256x256", "cuda 512x512", "cuda 1024x1024")
    }
    here = {side: one["seconds"] for side, one in found["sizes"].items()}
    given = (
        (
            f"one core of this {found['machine']['cpu']}",
            f"{found['model']}, through the server",
            here,
            found["sweep"],
        ),
        (
            gpu["name"],
            "preset edge, engine alone, one picture at a time; a server on it was not measured",
            engine_alone,
            sweep(np.ones(1), rest, engine_alone["512"]),
        ),
    )
    return [
        {
            "name": name,
            "measured": measured,
            "load": min(most(swept)["load"], FULLEST),
            "sizes": [{"pixels": int(side) ** 2, "seconds": one} for side, one in sizes.items()],
        }
        for name, measured, sizes, swept in given
    ]


def most(swept: list[dict[str, float]]) -> dict[str, float]:
    """The last of those, from few edges on, that all have their pixel level in time."""
    found = swept[0]
    for one in swept:
        if one["p99"] > BEST or one["overdue"]:
            break
        found = one
    return found


def comparison(runs: list[dict[str, Any]]) -> list[tuple[str, str, float, float, float]]:
    """Load, figure, measured, simulated with the times of the run, and predicted."""
    return [
        (f"{one['load']:.0%}", name, *(one[by][key] for by in ("measured", OWN, "predicted")))
        for one in runs
        for key, name in FIGURES.items()
        if one["measured"][key] > 0
    ]


def farthest(pairs: list[tuple[float, float]]) -> str:
    """How far the figure is off that is farthest from what was measured."""
    return f"{max(abs(found / measured - 1) for measured, found in pairs):.0%}"


def page(found: dict[str, Any], path: Path) -> None:
    """The page of a result."""
    figures = comparison(found["runs"])
    rate = found["camera"]["pictures"] * found["camera"]["unsettled"]
    full = most(found["sweep"])
    said = (
        f"Up to {full['edges']} edges, 99 of 100 unsettled pictures have their pixel level within {BEST:g} s. "
        "Beyond, the queue fills up, edges are told to come again, and the deadline decides more and more pictures."
    )
    write_page(
        path,
        "scale.html.j2",
        folder=Path(__file__).parent,
        scripts=[str(Path(__file__).with_suffix(".js"))],
        data={
            "machines": machines(found),
            "sweep": found["sweep"],
            "edges": full["edges"],
            "says": said,
            "bits": 8 * found["sizes"]["512"]["bytes"] / 512**2,
        },
        subtitle=f"{found['model']} by {found['engine']} on {found['machine']['cpu']}",
        camera=found["camera"],
        best=f"{BEST:g}",
        sweep_title=f"pictures of 512 x 512, {rate:g} unsettled ones a second and edge",
        agreement=AGREEMENT.format(
            edges=EDGES,
            own=farthest([(one, own) for *_, one, own, _ in figures]),
            predicted=farthest([(one, predicted) for *_, one, _, predicted in figures]),
        ),
        comparison=[
            (
                load,
                name,
                *map("{:.3g}".format, (one, own, predicted)),
                *map("{:.2f}".format, (own / one, predicted / one)),
            )
            for load, name, one, own, predicted in figures
        ],
        facts=[
            ("Machine", f"{found['machine']['cpu']}, {found['machine']['cores']} cores"),
            ("Measured", found["time"]),
            ("Commit", found["commit"]),
            ("Command", found["command"]),
        ],
    )


def main() -> None:
    """Measure if a model is given, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--side", type=int, default=128, help="pixels of the pictures of the measured runs")
    parser.add_argument("--seconds", type=float, default=40, help="of each measured run")
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    given = parser.parse_args()
    if given.model is not None:
        rows.write(given.out, measure(given.model, given.engine, given.side, given.seconds))
    page(json.loads(given.out.read_text()), given.out.with_suffix(".html"))


if __name__ == "__main__":
    main()
