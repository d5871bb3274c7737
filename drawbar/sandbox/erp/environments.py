"""Several environments of one Business Central behind one address, told apart by the path, and the list of them.

Applications, their rights and what they may ask of the service are the tenant's; companies, rows and subscriptions are
each environment's own.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping

from drawbar.sandbox.erp.business_central import BusinessCentral
from drawbar.sandbox.erp.model import ErpError, no_method
from drawbar.sandbox.grants import Grants
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.wire import Reply, Request, to_json

LIST = "environments"  # the right to see it is asked by this name
_LISTS = ("/environments/v1.2", "/environments/v1.1")
_IN_ONE = re.compile(r"/v2\.0/(?:[^/]+/)?(?P<name>[^/]+)/(?:api|ODataV4)(?:/|\Z)")


class Environments:
    system = "erp"

    def __init__(self, services: Mapping[str, BusinessCentral], *, tenant_id: str, origin: str, grants: Grants) -> None:
        """By name; the first one answers for addresses that are none's."""
        self._services = dict(services)
        self._first = next(iter(services.values()))
        self._tenant_id = tenant_id
        self._origin = origin
        self._grants = grants

    def caller(self, request: Request) -> str | None:
        return self._first.caller(request)

    def target(self, request: Request) -> str:
        return LIST if request.path.rstrip("/") in _LISTS else self._asked(request).target(request)

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        if request.path.rstrip("/") in _LISTS:
            return self._first.answered(request, self._listed)
        named = _IN_ONE.match(request.path)
        if request.app is not None and named is not None and named.group("name") not in self._services:
            return _no_environment(request)
        return self._asked(request).handle(request)

    def weight(self, request: Request) -> int:
        return self._asked(request).weight(request)

    def refused(self, request: Request, refusal: Refusal) -> Reply:
        return self._first.refused(request, refusal)

    def failed(self, request: Request) -> Reply:
        return self._first.failed(request)

    def _asked(self, request: Request) -> BusinessCentral:
        serving = (service for service in self._services.values() if service.serves(request.path))
        return next(serving, self._first)

    def _listed(self, request: Request, app: str) -> Reply:
        if request.method != "GET":
            raise no_method(request.method, "here")
        if not self._grants.allows("erp", app, LIST, "read"):
            raise ErpError(403, "Authorization_RequestDenied", "The token is none of an administrator.")
        rows = [
            {
                "aadTenantId": self._tenant_id,
                "applicationFamily": "BusinessCentral",
                "type": "Production" if name.lower() == "production" else "Sandbox",
                "name": name,
                "countryCode": "US",
                "webServiceUrl": self._origin,
                "webClientLoginUrl": f"{self._origin}/{self._tenant_id}/{name}",
                "ringName": "PROD",
            }
            for name in self._services
        ]
        return Reply(200, to_json({"value": rows}), {"Content-Type": "application/json; charset=utf-8"})


def _no_environment(request: Request) -> Reply:
    """From the gateway, which speaks XML unless it is asked for JSON."""
    code, text = "NoEnvironment", "Environment does not exist."
    if "json" in request.headers.get("accept", ""):
        error = {"error": {"code": code, "message": text}}
        return Reply(404, to_json(error), {"Content-Type": "application/json; charset=utf-8"})
    body = (
        '<error xmlns="http://docs.oasis-open.org/odata/ns/metadata">'
        f"<code>{code}</code><message>{text}</message></error>"
    )
    return Reply(404, body.encode(), {"Content-Type": "application/xml"})
