"""The plainest client that can talk to the sandbox: msal for the token, requests for the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msal
import requests

Info = dict[str, Any]


def session(info: Info) -> requests.Session:
    """Trusts the sandbox's authority and nothing the environment says."""
    made = requests.Session()
    made.trust_env = False
    made.verify = info["ca_file"] or True
    return made


def sign_in(info: Info, system: str, *, other: bool = False, **changed: Any) -> dict[str, Any]:
    """msal's answer to a client credentials request."""
    wanted = {**info[system], **(info[system]["other_app"] if other else {}), **changed}
    with session(info) as http:
        application = msal.ConfidentialClientApplication(
            wanted["client_id"],
            authority=info["sign_in"]["authority"],
            client_credential=wanted["client_secret"],
            instance_discovery=False,
            http_client=http,
        )
        return application.acquire_token_for_client([wanted["scope"]])


class Client:
    """One application on one system. Paths are relative to the company or to the Web API."""

    def __init__(self, info: Info, system: str, *, other: bool = False) -> None:
        self.http = session(info)
        self.http.headers["Authorization"] = f"Bearer {sign_in(info, system, other=other)['access_token']}"
        self.root = info[system]["base_url"]
        self.base = self.root + (f"/companies({info['erp']['company_id']})" if system == "erp" else "")

    def send(self, method: str, path: str, *, prefer: str | None = None, tag: str | None = None, **given: Any) -> Any:
        headers = dict(given.pop("headers", {}))
        if prefer:
            headers["Prefer"] = prefer
        if tag:
            headers["If-Match"] = tag
        url = path if "://" in path else f"{self.base}/{path}"
        return self.http.request(method, url, headers=headers, timeout=10, **given)

    def get(self, path: str, **given: Any) -> Any:
        return self.send("GET", path, **given)

    def rows(self, path: str, **given: Any) -> list[dict[str, Any]]:
        """All rows behind a path, page by page."""
        found: list[dict[str, Any]] = []
        url: str | None = path
        while url:
            body = self.get(url, **given).json()
            found += body["value"]
            url = body.get("@odata.nextLink")
            given.pop("params", None)
        return found

    def post(self, path: str, body: Any, **given: Any) -> Any:
        return self.send("POST", path, json=body, **given)

    def patch(self, path: str, body: Any, **given: Any) -> Any:
        return self.send("PATCH", path, json=body, **given)

    def delete(self, path: str, **given: Any) -> Any:
        return self.send("DELETE", path, **given)

    def close(self) -> None:
        self.http.close()


class Control:
    def __init__(self, info: Info) -> None:
        self.http = session(info)
        self.http.headers["Authorization"] = f"Bearer {info['control_token']}"
        self.url = info["control_url"]

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        reply = self.http.request(method, f"{self.url}/{path}", json=body, timeout=10)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def close(self) -> None:
        self.http.close()


def error_code(reply: requests.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def eventually(condition: Callable[[], bool], *, within_s: float = 5.0) -> bool:
    """Whether the condition comes to hold in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
