"""The HTTP port: replies, faults of the network, tokens, clock skew."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from email.utils import format_datetime

import pytest

from drawbar.odata import ODataHttp, SkewEstimate, retry_after_s, to_json, to_reply
from drawbar.ports import NoReply, Reply
from drawbar.signin import session_for
from schemas.errors import SignInFailed

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=timezone.utc)


class Tokens:
    """A sign-in that counts."""

    def __init__(self) -> None:
        self.fetched = 1

    def token(self, *, fresh: bool = False) -> str:
        self.fetched += fresh
        return f"token-{self.fetched}"


class Refused:
    def token(self, *, fresh: bool = False) -> str:
        raise SignInFailed("sign-in refused: invalid_client")


class Server:
    """Answers each connection with what the test says, and keeps what it was sent."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.received: list[bytes] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
                )
                while len(body) < length:
                    body += connection.recv(65536)
                self.received.append(head + b"\r\n\r\n" + body)
                answer = self._answer(data)
                if answer is not None:
                    connection.sendall(answer)
                else:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[bytes], bytes | None]], Server]]:
    servers: list[Server] = []

    def start(reply: Callable[[bytes], bytes | None]) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def a_port(url: str, sign_in=None) -> ODataHttp:
    return ODataHttp(
        base_url=url,
        sign_in=sign_in or Tokens(),  # type: ignore[arg-type]
        session=session_for(url, None, pool_size=2, timeout_s=5),
        headers={"Accept": "application/json", "If-None-Match": "null"},
        timeout_s=5,
    )


class TestCall:
    def test_signs_and_sends_json(self, serve):
        """Amounts keep their digits; a header of the call stands before the standard one."""
        server = serve(lambda _: answer(201, b'{"a": 1.10}', ETag='W/"1"'))
        port = a_port(server.url)

        reply = port.call("POST", "accounts", body={"creditlimit": Decimal("1.10")}, headers={"If-None-Match": "*"})

        assert (reply.status, reply.headers["etag"], reply.body) == (201, 'W/"1"', {"a": Decimal("1.10")})
        head, _, body = server.received[0].partition(b"\r\n\r\n")
        assert body == b'{"creditlimit":1.10}'
        assert b"POST /api/accounts HTTP/1.1" in head
        assert b"Authorization: Bearer token-1" in head
        assert b"If-None-Match: *" in head
        port.close()

    def test_fetches_one_fresh_token_after_a_401(self, serve):
        """A token that was withdrawn is replaced once; the request is repeated once."""
        server = serve(lambda data: answer(200 if b"token-2" in data else 401))
        port = a_port(server.url)

        assert port.call("GET", "accounts").status == 200
        assert len(server.received) == 2
        port.close()

    def test_returns_the_second_401_as_it_is(self, serve):
        """Refresh once, then give up: who calls decides what that means."""
        server = serve(lambda _: answer(401))
        port = a_port(server.url)

        assert port.call("GET", "accounts").status == 401
        assert len(server.received) == 2
        port.close()

    def test_knows_that_nothing_was_sent_where_nobody_listens(self):
        """A refused connection cannot have written anything."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        port = a_port(url)

        with pytest.raises(NoReply) as fault:
            port.call("PATCH", "accounts(1)", body={})

        assert fault.value.sent is False
        port.close()

    def test_does_not_know_after_a_reset(self, serve):
        """A connection that breaks after the request may have written."""
        server = serve(lambda _: None)
        port = a_port(server.url)

        with pytest.raises(NoReply) as fault:
            port.call("PATCH", "accounts(1)", body={})

        assert fault.value.sent is True
        port.close()

    def test_does_not_know_after_a_time_out(self, serve):
        """No answer in time: the server may still be at it."""
        release = threading.Event()

        def slow(_: bytes) -> bytes:
            release.wait(5)
            return answer(200)

        port = a_port(serve(slow).url)

        with pytest.raises(NoReply) as fault:
            port.call("PATCH", "accounts(1)", body={}, timeout_s=0.05)

        assert fault.value.sent is True
        release.set()
        port.close()

    def test_does_not_know_after_half_an_answer(self, serve):
        """A body that ends early."""
        server = serve(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        port = a_port(server.url)

        with pytest.raises(NoReply) as fault:
            port.call("PATCH", "accounts(1)", body={})

        assert fault.value.sent is True
        port.close()

    def test_without_a_token_sends_nothing(self):
        """The coded error is the cause, for who wants to say more."""
        port = a_port("http://127.0.0.1:9", Refused())

        with pytest.raises(NoReply, match="DRW-2001") as fault:
            port.call("GET", "accounts")

        assert fault.value.sent is False
        assert isinstance(fault.value.__cause__, SignInFailed)
        port.close()

    def test_follows_links_to_its_own_server_only(self, serve):
        """A next link is followed as it is; a token is for one server."""
        server = serve(lambda _: answer(200))
        port = a_port(server.url)

        assert port.call("GET", f"{server.url}/accounts?$skiptoken=1%20").status == 200
        assert b"GET /api/accounts?$skiptoken=1%20 " in server.received[0]
        with pytest.raises(NoReply, match="another server"):
            port.call("GET", "http://elsewhere.example/accounts")
        port.close()

    def test_keeps_no_cookies_and_follows_no_redirect(self, serve):
        """A routing cookie would tie us to one server; a redirected PATCH would become a GET."""
        server = serve(lambda _: answer(302, Set_Cookie="ARRAffinity=1", Location="/elsewhere"))
        port = a_port(server.url)

        assert [port.call("PATCH", "accounts(1)", body={}).status for _ in range(2)] == [302, 302]
        assert all(b"Cookie" not in request for request in server.received)
        port.close()


class TestToReply:
    def test_reads_numbers_exactly(self):
        """No amount goes through a binary fraction."""
        assert to_reply(200, {"X-A": "1"}, b"0.1") == Reply(status=200, headers={"x-a": "1"}, body=Decimal("0.1"))

    @pytest.mark.parametrize("content", [b"<html>", b'{"a":', b"\xff\xfe"])
    def test_says_what_is_no_json(self, content):
        """HTML from a proxy and broken JSON must not break the client."""
        assert to_reply(502, {}, content) == Reply(status=502, is_json=False)

    def test_keeps_a_metadata_document(self):
        """As bytes: what it says is for `drawbar.metadata`."""
        reply = to_reply(200, {"Content-Type": "application/xml; charset=utf-8"}, b"<Edmx/>")

        assert (b"<Edmx/>", False, None) == (reply.xml, reply.is_json, reply.body)

    @pytest.mark.parametrize("half", [rb"\ud800", rb"\uDFFF", b"\xed\xa0\x80"])
    def test_reads_half_a_character_as_the_sign_for_it(self, half):
        """JSON can say it, no message of ours can hold it: one such name must not stop its neighbours."""
        content = b'{"value":[{"name":"Fabri' + half + b'kam"},{"name":"Contoso \xf0\x9f\x8d\x8e \\ud83c\\udf4e"}]}'

        broken, neighbour = to_reply(200, {}, content).body["value"]

        assert (broken, neighbour) == ({"name": "Fabri\ufffdkam"}, {"name": "Contoso \U0001f34e \U0001f34e"})

    @pytest.mark.parametrize("content", [b"", b"  \n"])
    def test_takes_nothing_for_nothing(self, content):
        """204, and 401 with an empty body."""
        assert to_reply(204, {}, content) == Reply(status=204)


class TestToJson:
    def test_writes_what_the_library_cannot(self):
        """Decimals in lists and objects, non-Latin text, blank."""
        value = {"a": [Decimal("1E+3"), None, True], "ü": "Ω\n"}

        assert to_json(value) == '{"a":[1000,null,true],"\\u00fc":"\\u03a9\\n"}'


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("7", 7.0),
            ("0.5", 0.5),
            ("-3", 0.0),
            (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30.0),
            (format_datetime(NOW - timedelta(seconds=30), usegmt=True), 0.0),
            ("soon", None),
            ("", None),
        ],
    )
    def test_is_seconds_or_a_date(self, text, expected):
        """RFC 9110, section 10.2.3."""
        assert expected == retry_after_s(Reply(status=429, headers={"retry-after": text}), NOW)


class TestSkewEstimate:
    def test_claims_nothing_within_what_a_header_leaves_open(self):
        """Whole seconds, perhaps one second old."""
        skew = SkewEstimate()
        skew.note(100, before=100.9, after=101.0)

        assert skew.milliseconds == 0

    def test_narrows_with_every_reply(self):
        """A clock that is 5 s ahead, seen from many replies."""
        skew = SkewEstimate()
        for step in range(20):
            ours = 1000 + step * 0.37
            skew.note(int(ours + 5), before=ours, after=ours + 0.01)

        assert abs(skew.milliseconds - 5000) <= 600

    def test_begins_anew_when_a_clock_is_set(self):
        """Old bounds that contradict a new reply are forgotten."""
        skew = SkewEstimate()
        skew.note(1005, before=1000, after=1000.1)
        skew.note(2000, before=2000.5, after=2000.6)

        assert skew.milliseconds == 0
