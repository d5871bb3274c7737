"""A CRM that answers every PATCH at once and keeps nothing: `python -m tests.bench.stub CERTIFICATE KEY INFO`.

It answers with the record as it was sent and a version that grows, over TLS, as the service does. INFO is the file
that it writes its port to.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
import sys
from pathlib import Path

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
RECORD = re.compile(rb"PATCH \S*accounts\(([0-9a-f-]+)\)")
VERSIONS = itertools.count(1000)


class Answering(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._taken = b""

    def data_received(self, data: bytes) -> None:
        self._taken += data
        head, end, rest = self._taken.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        size = int(length[1]) if length else 0
        if not end or len(rest) < size:
            return
        self._taken = rest[size:]
        self._transport.write(answer(head, rest[:size]))


def answer(head: bytes, body: bytes) -> bytes:
    named = RECORD.match(head)
    record, version = named[1] if named else b"", b"%d" % next(VERSIONS)
    text = b'{"@odata.etag":"W/\\"%s\\"","accountid":"%s","versionnumber":%s,"modifiedon":"2026-11-25T00:00:00Z",%s' % (
        version,
        record,
        version,
        body[1:],
    )
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; odata.metadata=minimal\r\nContent-Length: %d\r\n\r\n%s"
        % (len(text), text)
    )


async def serve(certificate: str, key: str, info: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, ssl=context)
    info.with_suffix(".part").write_text(str(server.sockets[0].getsockname()[1]), "ascii")
    info.with_suffix(".part").rename(info)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
