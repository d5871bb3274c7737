"""For clients that know the real service's address and no other: a proxy in whose network that address is the sandbox.

The client is told of the proxy and of its certificate by the variables of the environment that every HTTP library
reads (`HTTPS_PROXY`, `SSL_CERT_FILE`); nothing of the client is changed. Needs Python 3.11, for TLS inside a connection that stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import queue
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BUSINESS_CENTRAL = "api.businesscentral.dynamics.com"


def certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate that says `host` and vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "host.pem", folder / "host-key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


@contextlib.contextmanager
def proxy(folder: Path, host: str, address: str, ca_file: str) -> Iterator[tuple[str, Path]]:
    """Its own address and the certificate to trust. What is sent to `host` goes to `address`, all else nowhere."""
    certificate_file, key_file = certificate(folder, host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    onward = ssl.create_default_context(cafile=ca_file)
    target = urlsplit(address)

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).split()
        if asked[:2] != [b"CONNECT", f"{host}:443".encode()]:
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        with contextlib.suppress(OSError):
            await writer.start_tls(context)
            from_service, to_service = await asyncio.open_connection(target.hostname, target.port, ssl=onward)
            try:
                await asyncio.gather(_pour(reader, to_service), _pour(from_service, writer))
            finally:
                to_service.transport.abort()
                writer.transport.abort()

    started: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = queue.Queue()

    async def serve() -> None:
        stopping = asyncio.Event()
        async with await asyncio.start_server(tunnel, "127.0.0.1", 0) as server:
            started.put((asyncio.get_running_loop(), stopping, server.sockets[0].getsockname()[1]))
            await stopping.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)  # what they opened is closed, and the loop knows it
        await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    loop, stopping, port = started.get()
    yield f"http://127.0.0.1:{port}", certificate_file
    loop.call_soon_threadsafe(stopping.set)
    thread.join()


async def _pour(source: asyncio.StreamReader, into: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            into.write(data)
            await into.drain()
    into.close()
