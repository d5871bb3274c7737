"""Calling webhook receivers, off the event loop.

The receiver's certificate is not checked: it is a developer's machine on both ends.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

WORKERS = 8  # calls under way at once


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: nobody answered."""

    status: int
    body: bytes = b""

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


class Notifier:
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="sandbox-webhook")
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    async def send(self, method: str, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._send, method, url, body, dict(headers), timeout_s)

    def _send(self, method: str, url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Answer:
        parts = urlsplit(url)
        connection: http.client.HTTPConnection
        try:
            if parts.scheme == "https":
                connection = http.client.HTTPSConnection(
                    parts.hostname or "", parts.port, timeout=timeout_s, context=self._context
                )
            else:
                connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
            try:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request(method, target, body=body, headers=headers)
                response = connection.getresponse()
                return Answer(response.status, response.read(65536))
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError):
            return Answer(0)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
