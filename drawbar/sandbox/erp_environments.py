"""Several environments of one Business Central behind one address, told apart by the path.

Applications, their rights and what they may ask of the service are the tenant's; companies, rows and subscriptions are
each environment's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from drawbar.sandbox.business_central import BusinessCentral
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.wire import Reply, Request


class Environments:
    system = "erp"

    def __init__(self, services: Mapping[str, BusinessCentral]) -> None:
        """By name; the first one answers for environments that there are not."""
        self._services = list(services.values())

    def caller(self, request: Request) -> str | None:
        return self._services[0].caller(request)

    def target(self, request: Request) -> str:
        return self._asked(request).target(request)

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        return self._asked(request).handle(request)

    def weight(self, request: Request) -> int:
        return self._asked(request).weight(request)

    def refused(self, request: Request, refusal: Refusal) -> Reply:
        return self._services[0].refused(request, refusal)

    def failed(self, request: Request) -> Reply:
        return self._services[0].failed(request)

    def _asked(self, request: Request) -> BusinessCentral:
        serving = (service for service in self._services if service.serves(request.path))
        return next(serving, self._services[0])
