"""What comes over the line and is no HTTP, or not the HTTP it says it is."""

from __future__ import annotations

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import requests

from tests.sandbox.client import Info

GARBAGE = [
    b"\r\n\r\n\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /a b c HTTP/1.1\r\n\r\n",
    b"G\x00T / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    b"GET /%zz%\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS, where there is none
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


def spoken(address: str, sent: bytes) -> bytes:
    """What comes back until the other side closes; nothing more is sent."""
    target = urlsplit(address)
    with socket.create_connection((target.hostname or "", target.port or 0), timeout=5) as line:
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        parts = []
        while part := line.recv(65536):
            parts.append(part)
        return b"".join(parts)


@pytest.fixture(scope="module")
def plain(start: Callable[..., Info]) -> Info:
    return start(seed="empty", limits=False, plain_http=True)


@pytest.fixture(scope="module")
def token(plain: Info) -> str:
    wanted = plain["erp"]
    form = {name: wanted[name] for name in ("client_id", "client_secret", "scope")}
    url = f"{plain['sign_in']['authority']}/oauth2/v2.0/token"
    reply = requests.post(url, data={"grant_type": "client_credentials", **form}, timeout=5)
    return str(reply.json()["access_token"])


class TestLine:
    @pytest.mark.parametrize("sent", GARBAGE, ids=range(len(GARBAGE)))
    @pytest.mark.parametrize("port", ["erp", "crm", "sign_in"])
    def test_that_is_no_http_is_a_clients_fault(self, plain: Info, token: str, port: str, sent: bytes):
        """RFC 9112, section 2.2: a recipient of what is no HTTP message should answer 400 and close."""
        address = plain["sign_in"]["authority"] if port == "sign_in" else plain[port]["base_url"]
        back = spoken(address, sent)

        assert back == b"" or 400 <= int(back.split()[1]) < 500
        assert self._customers(plain, token) is not None

    @pytest.mark.parametrize(
        ("said", "body"),
        [
            ("Content-Length: 1000", b'{"displayName": "Cut"}'),
            ("Content-Length: 10", b'{"displayName": "Cut"}'),
            ("Transfer-Encoding: chunked", b'16\r\n{"displayName": "Cut"}\r\n'),
        ],
        ids=["longer than the body", "shorter than the body", "chunks without end"],
    )
    def test_whose_body_is_not_as_long_as_it_says_is_not_carried_out(
        self, plain: Info, token: str, said: str, body: bytes
    ):
        """RFC 9112, section 8: a request that is not complete must not be taken for one."""
        address = f"{plain['erp']['base_url']}/companies({plain['erp']['company_id']})/customers"
        path = urlsplit(address).path
        before = self._customers(plain, token)
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{said}\r\n\r\n"

        back = spoken(address, head.encode() + body)

        assert back == b"" or 400 <= int(back.split()[1]) < 500
        assert before == self._customers(plain, token)

    @staticmethod
    def _customers(plain: Info, token: str) -> list[str]:
        address = f"{plain['erp']['base_url']}/companies({plain['erp']['company_id']})/customers"
        reply = requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=5)
        return [row["id"] for row in reply.json()["value"]]
