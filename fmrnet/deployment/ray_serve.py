"""The app of `fmrnet serve` on Ray Serve: replicas of it on the machines of a cluster, as many as the load needs.

    serve run fmrnet.deployment.ray_serve:app models=/models/carpet.fmr,/models/tile.fmr token_file=/etc/fmrnet/token

Each replica is the whole app, with its queue and its threads; Serve passes requests on to them, starts and ends them.
So routes, errors, tokens and back-pressure are those of one machine, and pictures are batched where they are there:
on a GPU, by the threads of a replica. (serve.batch would do it in front of the app; on a CPU batches gain nothing.)
"""

# No annotations as texts here: Serve looks at that of the builder's argument to know what to make of the options.
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Options", "Replica", "app"]

FINISH_SECONDS = 60.0  # for what a replica has in hand when it is ended


def _listed(value: object) -> object:
    """Several paths in one text, as a command line gives them."""
    return value.split(",") if isinstance(value, str) else value


class Options(BaseModel):
    """What is served, and how: the options of `fmrnet serve`, and how many replicas there may be.

    Attributes
    ----------
    models : list of path
        Model files, at the same place on every machine of the cluster; on a command line with commas between them.
    token_file : path, optional
        A token a line.
    waiting, megabytes, megapixels : int
        Limits of each replica.
    device, engine : str
        As of `fmrnet.load`.
    min_replicas, max_replicas : int
    ongoing : float
        Requests under way at each replica, on average, that Serve adds and ends replicas to keep to.
    cpus, gpus : float
        Of a machine that a replica takes up; PyTorch is given as many threads.
    """

    model_config = ConfigDict(extra="forbid")

    models: Annotated[list[Path], BeforeValidator(_listed), Field(min_length=1)]
    token_file: Path | None = None
    waiting: Annotated[int, Field(ge=1)] = 64
    megabytes: Annotated[int, Field(ge=1)] = 64
    megapixels: Annotated[int, Field(ge=1, le=134)] = 32
    device: str = "auto"
    engine: str = "auto"
    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 4
    ongoing: Annotated[float, Field(gt=0)] = 2.0
    cpus: Annotated[float, Field(ge=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0


class Replica:
    """One of the app's replicas; made once its models are warm, so that no request waits for that.

    Parameters
    ----------
    options : Options

    Raises
    ------
    ArtifactError, ConfigError
        As `Models` and `Tokens.from_file`.
    """

    def __init__(self, options: Options) -> None:
        from fmrnet.deployment.admission import Tokens
        from fmrnet.deployment.journal import log_in_json
        from fmrnet.deployment.models import Models

        log_in_json()
        self._options = options
        self._tokens = None if options.token_file is None else Tokens.from_file(options.token_file)
        self._models = Models(options.models, options.device, options.engine, options.megapixels * 10**6)
        self._models.warm_up()

    def __serve_build_asgi_app__(self) -> "FastAPI":
        """The app, as Serve asks for it."""
        from fmrnet.deployment.app import make_app

        return make_app(
            self._models,
            tokens=self._tokens,
            waiting=self._options.waiting,
            largest=self._options.megabytes * 2**20,
        )


def app(options: Options) -> Any:
    """The application for `serve run`.

    A replica is sent more requests than may wait at it, so that it is the one to refuse, with 429 and when to come
    again. Beyond these Serve itself holds as many again, and refuses with 503.
    """
    from ray import serve

    deployment: Any = serve.deployment(
        serve.ingress()(Replica),
        name="fmrnet",
        max_ongoing_requests=2 * options.waiting,
        max_queued_requests=2 * options.waiting,
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": max(options.min_replicas, options.max_replicas),
            "target_ongoing_requests": options.ongoing,
        },
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        graceful_shutdown_timeout_s=FINISH_SECONDS,
    )
    return deployment.bind(options)
