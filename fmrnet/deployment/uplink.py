"""The way up: a picture goes to the cloud, the pixel level's answer comes back. And when to try again.

Asking has no effect up there, so the same request may be sent as often as it takes. A library of retries (tenacity)
would keep the waiting inside one call; here all pictures of a link share it, and the end of the node ends it.
"""

from __future__ import annotations

import platform
import random
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import urllib3
from numpy.typing import NDArray

from fmrnet.deployment.protocol import HEADER_LENGTH, ProtocolError, Request, decode_response, encode_request
from fmrnet.errors import ConfigError, FmrnetError, printable

__all__ = ["Answer", "Backoff", "Refused", "Unreachable", "Uplink", "read_token"]

FIRST, LONGEST = 0.2, 30.0  # seconds: the greatest pause after the first failure, and after many
CONNECT, READ = 3.0, 15.0  # seconds until a link is taken for dead
VISIBLE = "".join(map(chr, range(33, 127)))  # what stands in a header as it is; the rest is percent-encoded
LARGEST_ANSWER = 2**20  # bytes of one with four numbers
LARGEST_BACKGROUND = 2**29  # bytes of one with a reconstruction
REFUSALS = {400, 413, 415, 422}  # that are about this picture, and will be the same next time

REMEDIES = {  # by OpenSSL's numbers
    9: "wait, or set the clock of this machine",
    10: "renew its certificate, or set the clock of this machine",
    62: "--cloud is to name it as its certificate does",
    64: "--cloud is to name it as its certificate does",
}
NO_TLS = "does it speak TLS at that port?"


class Refused(FmrnetError):
    """The cloud will not take this picture, now or later."""


class Unreachable(FmrnetError):
    """There is no answer for now.

    Attributes
    ----------
    pause : float
        Seconds for which the cloud asks to be left alone; 0 if it does not say.
    """

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


@dataclass(frozen=True)
class Answer:
    """The pixel level's verdict, as `fmrnet.inspection.inspector.Result` has it."""

    defective: bool
    score: float
    p_value: float
    level: str


class Uplink:
    """Asks one model of a cloud. It may be used by several threads at once.

    Parameters
    ----------
    url : str
        Such as https://host:8000.
    model, version : str
        The same model file up there as here, or edge and cloud would not decide alike.
    line : str
    token : str, optional
    authority : Path, optional
        Certificates, PEM, of which one must have signed the cloud's. Default: those that the system trusts.
    connections : int
        Requests under way at a time.

    Raises
    ------
    ConfigError
        If the URL is none, or the certificates cannot be read.
    """

    def __init__(
        self,
        url: str,
        model: str,
        version: str,
        line: str,
        *,
        token: str | None = None,
        authority: Path | None = None,
        connections: int = 4,
    ) -> None:
        try:
            parsed = urllib3.util.parse_url(url)
        except urllib3.exceptions.LocationParseError:
            parsed = urllib3.util.Url()
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(f"--cloud {url}: expected a URL such as https://cloud.example:8000")
        self.url = url.rstrip("/")
        root = (parsed.path or "").rstrip("/")
        self._model = f"{root}/v2/models/{quote(model, safe='')}.{{}}/versions/{version}/infer"
        self._headers = {"X-Edge": quote(platform.node()), "X-Line": quote(line)}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        trusted: dict[str, Any] = {}
        if parsed.scheme == "https":
            try:
                trusted["ssl_context"] = ssl.create_default_context(cafile=authority)
            except OSError as error:
                reason = "no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
                raise ConfigError(
                    f"--ca {authority}: {reason}; expected the certificates to trust"
                ) from error
        elif authority is not None:
            raise ConfigError(f"--cloud {url}: expected an https:// URL with --ca")
        self._pool = urllib3.connection_from_url(
            self.url,
            maxsize=connections,
            block=True,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT, read=READ),
            **trusted,
        )

    def ask(self, request: str, picture: bytes, false_alarms: float) -> Answer:
        """The pixel level's verdict on a picture file.

        Parameters
        ----------
        request : str
            An id, the same each time this is asked. It goes as X-Request-Id, too, for the log of whoever refuses it.
        picture : bytes
        false_alarms : float

        Raises
        ------
        Refused
        Unreachable
        """
        wanted = dict.fromkeys(("score", "p_value", "defective", "level"), True)
        asked = Request({"file": _bytes(picture)}, wanted, request, {"false_alarms": false_alarms})
        outputs = self._infer("pixel", asked, LARGEST_ANSWER)
        try:
            (score,), (p_value,), (defective,), (level,) = (outputs[name].ravel() for name in wanted)
            return Answer(bool(defective), float(score), float(p_value), bytes(level).decode())
        except (KeyError, ValueError, TypeError) as error:
            raise self._else("a verdict", error) from error

    def paint(self, request: str, features: bytes) -> NDArray[np.float32]:
        """The backgrounds (B, C, H, W) in [0, 1] that the decoder paints of features, see `fmrnet.deployment.features`.

        Raises as `ask`.
        """
        asked = Request({"features": _bytes(features)}, {"reconstruction": True}, request)
        outputs = self._infer("decoder", asked, LARGEST_BACKGROUND)
        painted = outputs.get("reconstruction")
        if painted is None or painted.dtype != np.float32 or painted.ndim != 4:
            raise self._else("a background", ValueError(", ".join(outputs)))
        return painted

    def _infer(self, endpoint: str, asked: Request, largest: int) -> Mapping[str, NDArray[Any]]:
        """The outputs of a request, of up to so many bytes."""
        body, headers = encode_request(asked)
        try:
            with self._pool.request(
                "POST",
                self._model.format(endpoint),
                body=body,
                headers=headers | self._headers | {"X-Request-Id": quote(asked.id, VISIBLE)},
                preload_content=False,
                redirect=False,
            ) as response:
                answer = response.read(largest)
                status, given = response.status, response.headers
        except urllib3.exceptions.SSLError as error:
            cause = next((one for one in error.args if isinstance(one, ssl.SSLError)), None)
            code = getattr(cause, "verify_code", None)
            raise Unreachable(
                f"{self.url} is not who it says, or not one to trust ({printable(cause or error, 200)}); "
                + (NO_TLS if code is None else REMEDIES.get(code, "--ca names the certificate that signs it"))
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{self.url} does not answer ({printable(error, 120)})") from error
        if status != 200:
            said = printable(answer.decode(errors="replace"), 200)
            if status in REFUSALS:
                raise Refused(f"the cloud refuses this picture ({status}): {said}")
            raise Unreachable(f"{self.url} answers {status}: {said}", _seconds(given.get("Retry-After")))
        try:
            return decode_response(answer, given.get(HEADER_LENGTH)).outputs
        except ProtocolError as error:
            raise self._else("an answer of the protocol", error) from error

    def _else(self, expected: str, error: Exception) -> Unreachable:
        return Unreachable(f"{self.url} answers something else than {expected} ({printable(error, 120)})")

    def close(self) -> None:
        """Let go of all connections."""
        self._pool.close()


class Backoff:
    """When to try again: after a pause drawn from 0 to a bound that doubles with each failure (full jitter)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0

    def failed(self, pause: float = 0.0) -> None:
        """Another failure; the other side asks for a pause of so many seconds."""
        with self._lock:
            bound = min(LONGEST, FIRST * 2 ** min(self._failures, 20))
            self._failures += 1
            self._until = time.monotonic() + min(pause, LONGEST) + random.uniform(0, bound)

    def succeeded(self) -> None:
        """It works again."""
        with self._lock:
            self._failures, self._until = 0, 0.0

    def left(self) -> float:
        """Seconds until the next try."""
        with self._lock:
            return max(0.0, self._until - time.monotonic())


def read_token(path: Path) -> str:
    """The token in a file; ConfigError if there is none."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--token-file {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not token or any(character.isspace() for character in token):
        raise ConfigError(f"--token-file {path}: expected one word, the token")
    return token


def _bytes(content: bytes) -> NDArray[Any]:
    """As the protocol's BYTES."""
    array = np.empty(1, object)
    array[0] = content
    return array


def _seconds(retry_after: str | None) -> float:
    """Of a header Retry-After; a date is taken for none."""
    return (
        float(retry_after)
        if retry_after is not None and retry_after.isdecimal() and len(retry_after) < 6
        else 0.0
    )
