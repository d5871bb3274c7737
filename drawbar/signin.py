"""Sign in to a system: client credentials by msal, with a secret, a secret in a file or a certificate.

No OAuth of our own. Tokens are kept in memory only. Nothing here prints a secret or a token: msal's own texts can hold
ids and are cut down to their codes.
"""

from __future__ import annotations

import json
import os
import re
import threading
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msal
import requests
from requests.adapters import HTTPAdapter

from drawbar.settings import ErpSettings, Settings, SystemSettings
from schemas.errors import SettingsError, SignInFailed, TokenRefused, Unreachable
from schemas.records import System

SIGN_IN_TIMEOUT_S = 30
_NO_TENANT = frozenset({"", "organizations", "common", "consumers"})  # stand for a tenant that is yet to be named
_SERVICE_CODE = re.compile(r"AADSTS\d+")
_WRONG_SCOPE = frozenset({"invalid_scope", "invalid_resource"})
# A routing cookie would tie us to one of the servers, whose limits are counted apart.
_NO_COOKIES = DefaultCookiePolicy(allowed_domains=[])


class SignIn:
    """The tokens of one application for one system. Safe to use from several threads."""

    def __init__(
        self,
        *,
        system: System,
        authority: str,
        client_id: str,
        credential: str | dict[str, str],
        scope: str,
        instance_discovery: bool,
        ca_file: Path | None,
    ) -> None:
        self._system = system
        self._authority = authority
        self._client_id = client_id
        self._credential = credential
        self._scope = scope
        self._instance_discovery = instance_discovery
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._application: Any = None

    def token(self, *, fresh: bool = False) -> str:
        """An access token; `fresh` throws the kept one away first.

        Raises SignInFailed, TokenRefused (the scope) or Unreachable.
        """
        with self._lock:
            try:
                if self._application is None:
                    self._application = self._make()
                elif fresh:
                    self._application.remove_tokens_for_client()
                answer: dict[str, Any] = self._application.acquire_token_for_client(scopes=[self._scope])
            except requests.RequestException as fault:
                raise Unreachable(
                    f"the sign-in service does not answer ({type(fault).__name__})", where=self._where()
                ) from fault
            except json.JSONDecodeError as fault:
                raise Unreachable("the sign-in service does not answer in JSON", where=self._where()) from fault
            except ValueError as fault:
                # msal's way to say that an authority, a secret or a certificate cannot be used
                raise SignInFailed(
                    "the authority, the secret or the certificate cannot be used", where=self._where()
                ) from fault
        if "access_token" in answer:
            return str(answer["access_token"])
        raise self._refusal(answer)

    def _make(self) -> Any:
        return msal.ConfidentialClientApplication(
            self._client_id,
            client_credential=self._credential,
            authority=self._authority,
            instance_discovery=self._instance_discovery,
            http_client=session_for(self._authority, self._ca_file, pool_size=1, timeout_s=SIGN_IN_TIMEOUT_S),
        )

    def _refusal(self, answer: dict[str, Any]) -> SignInFailed | TokenRefused:
        reason = str(answer.get("error", "no reason given"))
        found = _SERVICE_CODE.search(str(answer.get("error_description", "")))
        text = f"sign-in refused: {reason}" + (f" ({found[0]})" if found else "")
        kind = TokenRefused if reason in _WRONG_SCOPE else SignInFailed
        return kind(text, where=self._where())

    def _where(self) -> str:
        return f"{self._system.value} sign-in at {self._authority}, application {self._client_id}"


def sign_in_for(settings: Settings, system: System) -> SignIn:
    """The sign-in of one system. Raises SettingsError naming what is missing."""
    part = system_settings(settings, system)
    for name in ("client_id", "scope"):
        if not getattr(part, name):
            raise SettingsError(f"{system.value}.{name} is not set", where=_variable(system, name))
    return SignIn(
        system=system,
        authority=authority_of(settings),
        client_id=part.client_id,
        credential=_credential(part, system),
        scope=part.scope,
        instance_discovery=settings.sign_in.instance_discovery,
        ca_file=settings.ca_file,
    )


def system_settings(settings: Settings, system: System) -> SystemSettings | ErpSettings:
    """The part of the settings that is about one system."""
    return settings.erp if system is System.ERP else settings.crm


def authority_of(settings: Settings) -> str:
    """`sign_in.authority` with the tenant in it, where a tenant is set and the address names none."""
    parts = urlsplit(settings.sign_in.authority)
    tenant = parts.path.strip("/")
    if settings.sign_in.tenant_id and tenant in _NO_TENANT:
        tenant = settings.sign_in.tenant_id
    return urlunsplit((parts.scheme, parts.netloc, f"/{tenant}", "", ""))


def session_for(url: str, ca_file: Path | None, *, pool_size: int, timeout_s: float) -> requests.Session:
    """A pooled session that keeps no cookies and never retries.

    The machine's proxies and certificate authorities are read once, here: requests would read them anew for each
    call, take its `REQUESTS_CA_BUNDLE` before ours, and a `.netrc` before our token.

    Raises SettingsError when the file of certificate authorities is not there.
    """
    if ca_file is not None and not ca_file.is_file():
        raise SettingsError("there is no file of certificate authorities", where=f"ca_file {ca_file}")
    session = requests.Session()
    session.trust_env = False
    session.proxies.update(requests.utils.get_environ_proxies(url))
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    session.verify = str(ca_file) if ca_file else (bundle or True)
    session.cookies.set_policy(_NO_COOKIES)
    adapter = _TimedAdapter(pool_size, timeout_s)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class _TimedAdapter(HTTPAdapter):
    """Gives every request a time-out: requests itself waits for ever."""

    def __init__(self, pool_size: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        super().__init__(pool_connections=2, pool_maxsize=pool_size, max_retries=0)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        limit = self._timeout_s if timeout is None else timeout
        return super().send(request, stream=stream, timeout=limit, verify=verify, cert=cert, proxies=proxies)


def _credential(part: SystemSettings, system: System) -> str | dict[str, str]:
    if part.client_secret is not None and part.client_secret.get_secret_value():
        return part.client_secret.get_secret_value()
    if part.client_secret_file is not None:
        secret = _read(part.client_secret_file, system, "client_secret_file").strip()
        if secret:
            return secret
        raise SettingsError(
            f"{system.value}.client_secret_file names an empty file", where=_variable(system, "client_secret_file")
        )
    if part.client_certificate_file is not None:
        pem = _read(part.client_certificate_file, system, "client_certificate_file")
        if "PRIVATE KEY-----" not in pem or "BEGIN CERTIFICATE-----" not in pem:
            raise SettingsError(
                f"{system.value}.client_certificate_file must hold a private key and its certificate, as PEM",
                where=_variable(system, "client_certificate_file"),
            )
        return {"private_key": pem, "public_certificate": pem}
    raise SettingsError(
        f"{system.value} has neither a secret nor a certificate", where=_variable(system, "client_secret")
    )


def _read(path: Path, system: System, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise SettingsError(
            f"{system.value}.{name} names a file that cannot be read", where=_variable(system, name)
        ) from fault


def _variable(system: System, name: str) -> str:
    return f"DRAWBAR_{system.value.upper()}__{name.upper()}"
