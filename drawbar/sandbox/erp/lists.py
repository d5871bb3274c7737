"""Sets of Business Central as they are answered: pages of their entities, and counts."""

from __future__ import annotations

from drawbar.sandbox.erp.call import Call
from drawbar.sandbox.erp.model import EntitySet, ErpError
from drawbar.sandbox.erp.reading import ErpReader, Within, read_token, values_of, whole, write_token
from drawbar.sandbox.listings import Listings
from drawbar.sandbox.odata import first_after, sort_rows, sort_values
from drawbar.sandbox.odata_reply import ok, plain
from drawbar.sandbox.store import Store, Stored, Values
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import Reply

PAGE = 20_000
_OF_ONE_PAGE = ("$skiptoken", "$skip", "aid")  # options that do not say which rows, only where a page begins


class Lists:
    def __init__(self, store: Store, reader: ErpReader, switches: Switches) -> None:
        self._reader = reader
        self._switches = switches
        self._listings: Listings[Stored] = Listings(store)

    def count(self, call: Call, entity_set: EntitySet, within: Within | None = None) -> Reply:
        call.caller.demand(entity_set, "read")
        return plain(str(len(self._reader.selected(call.company, entity_set, call.options, within))))

    def rows(self, call: Call, entity_set: EntitySet, within: Within | None = None) -> Reply:
        call.caller.demand(entity_set, "read")
        company, options = call.company, call.options
        address = f"companies({company})/{within.address if within else entity_set.name}"
        size = whole(call.request.preferences().get("odata.maxpagesize", str(PAGE)), "odata.maxpagesize")
        if size > PAGE:
            raise ErpError(413, "BadRequest", f"The page size must not exceed {PAGE}.")
        schema = self._reader.schema(company, entity_set)
        orders = self._reader.orders(entity_set, schema, options)
        token = options.get("$skiptoken")

        def select() -> list[Stored]:
            rows = self._reader.selected(company, entity_set, options, within)
            sort_rows(rows, orders, row_of=values_of)
            return rows

        query = frozenset((name, value) for name, value in options.items() if name not in _OF_ONE_PAGE)
        rows = self._listings.rows(
            (call.api.route, company, entity_set.name, within, query), select, goes_on=token is not None
        )
        total, start = len(rows), 0
        left: int | None = whole(options["$top"], "$top") if "$top" in options else None
        if token is not None:
            last, left = read_token(token)
            start = first_after(rows, last, orders, row_of=values_of)
        elif "$skip" in options:
            start = whole(options["$skip"], "$skip")
        there = max(0, total - start)
        there = there if left is None else min(there, left)
        page = rows[start : start + min(there, max(1, size))]
        shape = self._reader.shape(company, entity_set, options, call.caller.demand_read)
        chosen = f"({options['$select']})" if "$select" in options else ""
        body: Values = {"@odata.context": f"{call.api.url}/$metadata#{address}{chosen}"}
        if options.get("$count") == "true":
            body["@odata.count"] = total
        body["value"] = [shape(stored) for stored in page]
        if len(page) < there:
            rest = None if left is None else left - len(page)
            token = write_token(sort_values(page[-1].values, orders), rest)
            body["@odata.nextLink"] = f"{call.api.url}/{address}?{self._next(call.request.query, token)}"
        return ok(body)

    def _next(self, query: str, token: str) -> str:
        """The query of the page after one."""
        kept = [
            part
            for part in query.split("&")
            if part and not part.startswith(("$skiptoken=", "%24skiptoken=", "aid=", "$skip=", "%24skip="))
        ]
        aid = ["aid=FIN"] if self._switches["erp_next_link"] == "aid_and_skiptoken" else []
        return "&".join((*kept, *aid, f"$skiptoken={token}"))
