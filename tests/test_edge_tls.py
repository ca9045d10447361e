"""Edge to cloud by TLS: a certificate that the edge has been told to trust, and one that it has not."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import socketserver
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from lines import until, write, write_model
from serving import serving

from fmrnet.deployment.node import EdgeNode
from fmrnet.deployment.uplink import Unreachable, Uplink
from fmrnet.deployment.verdict import DecidedBy
from fmrnet.errors import ConfigError


def certificate(folder: Path, name: str, days: int = 0) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, valid around so many days from today, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days)
    made = (
        x509.CertificateBuilder(own, own, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(1))
        .not_valid_after(today + datetime.timedelta(1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    found = folder / f"{name}.pem", folder / f"{name}.key"
    found[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    found[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return found


def test_a_cloud_that_is_trusted_decides_and_another_is_told_of(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.fmr")
    own, key = certificate(tmp_path, "cloud")
    other, _ = certificate(tmp_path, "other")
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "1.png", 1)
    with serving([model], certificate=own, key=key) as cloud:
        said: list[str] = []
        for authority in (other, None):
            with EdgeNode(
                model,
                tmp_path / "out",
                watch=tmp_path / "in",
                cloud=f"https://{cloud.address}",
                authority=authority,
                line="A",
                device="cpu",
                log=said.append,
            ) as node:
                until(lambda node=node: node.troubles())
                (trouble,) = node.troubles()
                assert "not one to trust" in trouble
                assert "--ca" in trouble
                assert "\n" not in trouble
                assert node.state()["totals"]["open"] == 1  # and waits
        with EdgeNode(
            model,
            tmp_path / "out",
            watch=tmp_path / "in",
            cloud=f"https://{cloud.address}",
            authority=own,
            line="A",
            device="cpu",
        ) as node:
            until(lambda: node.state()["totals"]["open"] == 0)
            found = node.verdict(1)
            assert found is not None
            assert found.decided_by == DecidedBy.cloud
            assert node.troubles() == []


@pytest.mark.parametrize(
    ("scheme", "host", "days", "said"),
    [
        ("https", "127.0.0.1", -9, "has expired .* renew its certificate"),
        ("https", "127.0.0.1", 9, "not yet valid .* set the clock"),
        ("https", "localhost", 0, "Hostname mismatch.* --cloud is to name it as its certificate does"),
        (None, "127.0.0.1", 0, "does it speak TLS"),
    ],
    ids=["expired", "not yet valid", "another name", "no TLS"],
)
def test_what_is_wrong_with_a_certificate_is_said(
    scheme: str | None, host: str, days: int, said: str, tmp_path: Path
) -> None:
    own, key = certificate(tmp_path, "cloud", days)
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.daemon_threads = True
    if scheme:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *given: None
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    uplink = Uplink(f"https://{host}:{server.server_address[1]}", "tiny", "1", "A", authority=own)
    try:
        with pytest.raises(Unreachable, match=said) as told:
            uplink.ask("A-1", b"picture", 0.05)
        assert "\n" not in str(told.value)
    finally:
        uplink.close()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("content", "url", "said"),
    [
        (None, "https://a.example", "No such file"),
        ("no certificate", "https://a.example", "no certificate in PEM"),
        ("", "http://a.example", "expected an https:// URL"),
    ],
)
def test_an_authority_that_is_none(tmp_path: Path, content: str | None, url: str, said: str) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(ConfigError, match=said):
        Uplink(url, "tiny", "1", "A", authority=tmp_path / "ca.pem")
