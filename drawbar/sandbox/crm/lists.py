"""Rows of a table as they are answered: pages of a list, counts, addresses alone, FetchXML, and what `$apply` gives."""

from __future__ import annotations

from drawbar.sandbox.crm.call import Call
from drawbar.sandbox.crm.changes import Changes
from drawbar.sandbox.crm.fetch import read_fetch, run_fetch
from drawbar.sandbox.crm.model import CrmError, Entity
from drawbar.sandbox.crm.paging import COUNT_CAP, PAGE, page_size, read_cookie, without, write_cookie
from drawbar.sandbox.crm.reading import Within, itself, top_of
from drawbar.sandbox.crm.records import CrmRecords
from drawbar.sandbox.crm.reply import prefer
from drawbar.sandbox.crm.rows import context_of
from drawbar.sandbox.listings import Listings
from drawbar.sandbox.odata import first_after, sort_rows, sort_values
from drawbar.sandbox.odata_reply import ok, plain
from drawbar.sandbox.store import Values
from drawbar.sandbox.wire import Reply


class Lists:
    def __init__(self, records: CrmRecords, base_url: str, changes: Changes) -> None:
        self._records = records
        self._base_url = base_url
        self._changes = changes
        self._listings: Listings[Values] = Listings(records.store)

    def rows(self, call: Call, entity: Entity, within: Within | None = None) -> Reply:
        """In whatever way the rows are asked for."""
        call.allow(entity, "read")
        _check_place(call, within)
        if "$deltatoken" in call.options:
            return self._changes.rows(call, entity)
        if "fetchXml" in call.options:
            return self._fetch(call, entity)
        if "$apply" in call.options:
            return self._aggregate(call, entity, within)
        return self._page(call, entity, within)

    def count(self, call: Call, entity: Entity, within: Within | None = None) -> Reply:
        call.allow(entity, "read")
        _check_place(call, within)
        if "$deltatoken" in call.options:
            count = self._changes.count(call, entity)
        else:
            count = len(call.reader.matching(entity, call.options, within))
        return plain(str(min(count, COUNT_CAP)))

    def references(self, call: Call, entity: Entity, within: Within) -> Reply:
        """The addresses of the rows below one."""
        call.allow(entity, "read")
        _check_place(call, within)
        return self._page(call, entity, within, of_addresses=True)

    def _page(self, call: Call, entity: Entity, within: Within | None, *, of_addresses: bool = False) -> Reply:
        call.allow_expanded(entity)
        tracking = "odata.track-changes" in call.preferences and within is None
        if tracking:
            self._changes.must_be_trackable(call, entity)
        orders = call.reader.orders(entity, call.options)

        def select() -> list[Values]:
            rows = call.reader.matching(entity, call.options, within)
            sort_rows(rows, orders, row_of=itself)
            return rows

        asked = frozenset((name, value) for name, value in call.options.items() if name != "$skiptoken")
        whose = None if call.caller.unrestricted else call.caller.number
        rows = self._listings.rows((entity.set, within, asked, whose), select, goes_on="$skiptoken" in call.options)
        total, start = len(rows), 0
        version, number = self._records.store.version, 1
        if "$skiptoken" in call.options:
            (last, version), number = read_cookie(call.options["$skiptoken"])
            start = first_after(rows, last, orders, row_of=itself)
        size, left = page_size(call.preferences), len(rows) - start
        if "$top" in call.options:
            size = left = min(left, top_of(call.options), PAGE)
        page = rows[start : start + size]
        body = self._head(call, entity, total)
        if of_addresses:
            body["@odata.context"] = f"{self._base_url}/$metadata#Collection($ref)"
            body["value"] = [{"@odata.id": f"{self._base_url}/{entity.set}({row[entity.id]})"} for row in page]
        else:
            paged = size if "odata.maxpagesize" in call.preferences else None
            shape = call.reader.shape(entity, call.options, call.included, page=paged)
            body["value"] = [shape(row) for row in page]
        kept = without(call.request.query, "$skiptoken")
        if len(page) < left:
            cookie = write_cookie(entity, page, number + 1, [sort_values(page[-1], orders), version], tracking=tracking)
            address = within.address if within else entity.set
            address += "/$ref" if of_addresses else ""
            body["@odata.nextLink"] = f"{self._base_url}/{address}?{kept}$skiptoken={cookie}"
        elif tracking:
            body["@odata.deltaLink"] = self._changes.link(entity, kept, version)
        reply = ok(body)
        if tracking:
            prefer(reply, "odata.track-changes")
        if "odata.maxpagesize" in call.preferences:
            prefer(reply, f"odata.maxpagesize={page_size(call.preferences)}")
        return reply

    def _head(self, call: Call, entity: Entity, total: int) -> Values:
        """A body before its rows: of what they are, and how many there are."""
        body: Values = {"@odata.context": context_of(call, entity, self._base_url)}
        counted = call.options.get("$count") == "true"
        if counted:
            body["@odata.count"] = min(total, COUNT_CAP)
        if call.included("Microsoft.Dynamics.CRM.totalrecordcount"):
            body["@Microsoft.Dynamics.CRM.totalrecordcount"] = min(total, COUNT_CAP) if counted else -1
            body["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] = counted and total > COUNT_CAP
        return body

    def _aggregate(self, call: Call, entity: Entity, within: Within | None) -> Reply:
        """Rows grouped and added up."""
        applied = call.reader.apply(entity, call.options)
        for table in applied.tables:
            call.allow(table, "read")
        rows = call.reader.applied(entity, applied, call.options, call.included, within)
        body: Values = {"@odata.context": f"{self._base_url}/$metadata#{entity.set}"}
        if call.options.get("$count") == "true":
            body["@odata.count"] = min(len(rows), COUNT_CAP)
        return ok({**body, "value": rows})

    def _fetch(self, call: Call, entity: Entity) -> Reply:
        """A query in FetchXML. Every table that it links to must be readable."""
        user_id = str(call.user.get("systemuserid", ""))
        text, now = call.options["fetchXml"], self._records.store.clock.now()
        fetch = read_fetch(text, self._records.entities, now=now, user_id=user_id, entity=entity)
        for linked in fetch.joins:
            call.allow(linked.entity, "read")
        found = run_fetch(fetch, lambda table: call.reader.matching(table, {}))
        included = call.included
        body: Values = {"@odata.context": f"{self._base_url}/$metadata#{entity.set}"}
        if fetch.total:
            body["@Microsoft.Dynamics.CRM.totalrecordcount"] = min(found.total, COUNT_CAP)
            body["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] = found.total > COUNT_CAP
        if found.cookie and included("Microsoft.Dynamics.CRM.fetchxmlpagingcookie"):
            body["@Microsoft.Dynamics.CRM.fetchxmlpagingcookie"] = found.cookie
        if included("Microsoft.Dynamics.CRM.morerecords"):
            body["@Microsoft.Dynamics.CRM.morerecords"] = found.more
        body["value"] = (
            found.rows if fetch.aggregate else [call.reader.annotated(entity, row, included) for row in found.rows]
        )
        return ok(body)


def _check_place(call: Call, within: Within | None) -> None:
    """Raises CrmError where what is asked of a whole table is asked of the rows below one."""
    for option in ("$deltatoken", "fetchXml"):
        if within is not None and option in call.options:
            raise CrmError(400, "0x80060888", f"The query parameter {option} is not supported below a row.")
