"""The sandbox's services without a socket: a request is handed to them as uvicorn would, and answered at once.

Everything behind the socket is as it runs: `wire.Endpoint` with faults, limits and headers, the services and their
stores. `whole` is the ground truth; `restore` takes back what was done since `keep`.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
import requests
from requests.adapters import BaseAdapter

from drawbar.sandbox import server
from drawbar.sandbox.control import Control as ControlEndpoint
from drawbar.sandbox.notify import Notifier
from drawbar.sandbox.seeds.planting import Identities
from drawbar.sandbox.sign_in import Application
from drawbar.sandbox.store import Database, Store, Stored, Table
from tests.sandbox.client import Client, Info

Headers = Mapping[str, str]
_APPS = ("erp", "erp_other", "crm", "crm_other")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class _Kept:
    tables: dict[str, tuple[dict[str, Stored], dict[str, int], list[tuple[int, str]]]]
    facts: bytes
    version: int
    ids: object


class World:
    """One sandbox, its applications signed in."""

    def __init__(self, folder: Path, **options: Any) -> None:
        asked = server.SandboxOptions(state_dir=folder, plain_http=True, limits=False, **options)
        identities = Identities.from_seed(asked.random_seed)
        applications = {
            app: Application(
                name=app,
                client_id=identities.client_ids[app],
                client_secret=f"secret of {app}",
                object_id=identities.client_ids[app],
            )
            for app in _APPS
        }
        origins = {name: f"http://{name}.test" for name in ("sign_in", "erp", "crm")}
        self.loop = asyncio.new_event_loop()
        self.control_token = "control"
        self.notifier = Notifier()
        self.machine = server._Machine(
            asked,
            server.ensure_certificates(folder),
            identities,
            applications,
            origins,
            Database(None),
            self.notifier,
            {"control_token": self.control_token},
        )
        self.info: Info = self.machine.info
        self.erp = self.machine._environments[server.ENVIRONMENT]
        self.crm = self.machine.endpoints["crm"]._service
        control = self.machine.endpoints["sign_in"]._service._control
        assert isinstance(control, ControlEndpoint)
        self.control = control
        self.stores: dict[str, Store] = {"erp": self.erp.store, "crm": self.crm.store}
        self.shapes: dict[str, Any] = {}
        self.bases: dict[str, dict[str, dict[str, Any]]] = {}  # by system and set
        self.crm_sets: list[str] = []
        self.crm_tables: list[str] = []
        self.tokens: dict[str, str] = {}
        self.sign_in()

    def close(self) -> None:
        self.machine.close()
        self.notifier.close()
        self.loop.close()

    def send(self, system: str, method: str, target: bytes | str, headers: Headers, body: bytes = b"") -> Answer:
        """`target` as it stands in a request line; `system` may be `sign_in`. Header names in lower case."""
        raw = target.encode("utf-8") if isinstance(target, str) else target
        path, _, query = raw.partition(b"?")
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path.decode("latin-1")),
            "query_string": query,
            "headers": [
                (name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()
            ],
        }
        scope["state"] = {"transport": _Line()}
        parts: list[dict[str, Any]] = [
            {"type": "http.disconnect"},
            {"type": "http.request", "body": body, "more_body": False},
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> Mapping[str, Any]:
            return parts.pop()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        self.loop.run_until_complete(self.machine.endpoints[system](scope, receive, send))
        if not sent:
            return Answer(0, {}, b"")  # a fault closed the connection
        start, end = sent
        told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
        return Answer(start["status"], told, end["body"])

    def ask(self, system: str, method: str, path: str, *, body: Any = None, **headers: str) -> Answer:
        """As the first application, below the company or the Web API."""
        sent = {
            "authorization": f"Bearer {self.tokens[system]}",
            "content-type": "application/json",
            **{n.replace("_", "-"): v for n, v in headers.items()},
        }
        return self.send(system, method, self.below(system, path), sent, b"" if body is None else orjson.dumps(body))

    def below(self, system: str, path: str) -> str:
        base = urlsplit(self.info[system]["base_url"]).path
        company = f"/companies({self.info['erp']['company_id']})" if system == "erp" else ""
        return f"{base}{company}/{path}"

    def command(self, method: str, path: str, body: bytes = b"") -> Answer:
        """A call of the control endpoint."""
        headers = {"authorization": f"Bearer {self.control_token}"}
        return self.send("sign_in", method, f"/control/{path}", headers, body)

    def client(self, system: str) -> Client:
        """The client of the other tests, on this sandbox."""
        made = Client.__new__(Client)
        made.http = requests.Session()
        made.http.headers["Authorization"] = f"Bearer {self.tokens[system]}"
        made.http.mount("http://", _Adapter(self))
        made.root = self.info[system]["base_url"]
        made.base = made.root + (f"/companies({self.info['erp']['company_id']})" if system == "erp" else "")
        return made

    def sign_in(self) -> None:
        self.tokens = {system: self._token(system) for system in ("erp", "crm")}

    def _token(self, system: str) -> str:
        wanted = self.info[system]
        form = {
            "grant_type": "client_credentials",
            "client_id": wanted["client_id"],
            "client_secret": wanted["client_secret"],
            "scope": wanted["scope"],
        }
        body = requests.models.RequestEncodingMixin._encode_params(form).encode()
        target = f"/{self.info['sign_in']['tenant_id']}/oauth2/v2.0/token"
        return str(self.send("sign_in", "POST", target, {}, body).json()["access_token"])

    # ------------------------------------------------------------ ground truth

    def whole(self, system: str) -> bytes:
        """Every row with its version. Equal only where nothing was written."""
        tables = self.stores[system]._tables
        return orjson.dumps(
            {
                name: {row_id: [stored.version, stored.values] for row_id, stored in table.rows.items()}
                for name, table in tables.items()
                if table.rows
            },
            option=orjson.OPT_SORT_KEYS,
        )

    def keep(self) -> dict[str, _Kept]:
        return {
            system: _Kept(
                {name: (dict(t.rows), dict(t.deleted), list(t.log)) for name, t in store._tables.items()},
                orjson.dumps(store._facts),
                store.version,
                store._ids.getstate(),
            )
            for system, store in self.stores.items()
        }

    def restore(self, kept: Mapping[str, _Kept]) -> None:
        for system, store in self.stores.items():
            was = kept[system]
            store._facts = orjson.loads(was.facts)
            store.version = was.version
            store._ids.setstate(was.ids)  # type: ignore[arg-type]
            for name, table in store._tables.items():
                rows, deleted, log = was.tables.get(name, ({}, {}, []))
                table.rows, table.deleted, table.log = dict(rows), dict(deleted), list(log)
                table.writes += 1  # what was listed before is not to be taken for this
                _forget_indexes(table)


def _forget_indexes(table: Table) -> None:
    """They are made anew when somebody looks; those of the store that nobody makes again are kept up to date."""
    readers = dict(table._readers)
    table.indexes.clear()
    table._groups.clear()
    for columns, read in readers.items():
        table.index(columns, read)


class _Line:
    """A connection that a fault may close."""

    def abort(self) -> None:
        pass


class _Adapter(BaseAdapter):
    """Lets `requests` speak with a world."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        address = urlsplit(str(request.url))
        body = request.body or b""
        headers = {str(name).lower(): str(value) for name, value in request.headers.items()}
        target = f"{address.path}?{address.query}" if address.query else address.path
        given = body.encode() if isinstance(body, str) else body
        answer = self._world.send(str(address.hostname).partition(".")[0], str(request.method), target, headers, given)
        made = requests.Response()
        made.status_code, made.request, made.url = answer.status, request, str(request.url)
        made.headers.update(answer.headers)
        made.raw = io.BytesIO(answer.body)
        return made

    def close(self) -> None:
        pass
