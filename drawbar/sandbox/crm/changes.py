"""Dataverse's change tracking: what has changed in a table since a delta link was given out.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems
"""

from __future__ import annotations

import datetime as dt
from urllib.parse import quote

from drawbar.sandbox.crm.call import Call
from drawbar.sandbox.crm.model import CrmError, Entity
from drawbar.sandbox.crm.organization import setting
from drawbar.sandbox.crm.paging import page_size, read_cookie, without, write_cookie
from drawbar.sandbox.crm.records import CrmRecords
from drawbar.sandbox.crm.reply import prefer
from drawbar.sandbox.crm.rows import context_of
from drawbar.sandbox.odata_reply import ok
from drawbar.sandbox.store import Stored, Values
from drawbar.sandbox.wire import Reply

DAY_S = 86_400
_UNTRACKED = ("$filter", "$orderby", "$expand", "$top")


class Changes:
    def __init__(self, records: CrmRecords, base_url: str) -> None:
        self._records = records
        self._store = records.store
        self._base_url = base_url

    def must_be_trackable(self, call: Call, entity: Entity) -> None:
        if "versionnumber" not in entity.attributes:
            raise CrmError(400, "0x80072491", f"Change tracking is not enabled for the entity '{entity.logical}'.")
        for option in _UNTRACKED:
            if option in call.options:
                raise CrmError(
                    400, "0x80060888", f"The {option} parameter is not supported when Change Tracking is enabled."
                )

    def link(self, entity: Entity, kept: str, version: int) -> str:
        """By which it is asked what has changed after a version; `kept`: the options of the query that it goes on."""
        stamp = self._store.clock.now().strftime("%m/%d/%Y %H:%M:%S")
        token = quote(f"{version}!{stamp}", safe="")
        return f"{self._base_url}/{entity.set}?{without(kept, '$deltatoken')}$deltatoken={token}"

    def expire_links(self) -> None:
        """Every delta link given out so far is refused from now on."""
        with self._store.transaction():
            self._store.set_fact("delta_floor", self._store.version)
            self._store.skip_version()

    def count(self, call: Call, entity: Entity) -> int:
        since = self._version(call.options["$deltatoken"])
        changed, gone = self._since(call, entity, since, self._store.version)
        return len(changed) + len(gone)

    def rows(self, call: Call, entity: Entity) -> Reply:
        """Rows as they are now, then what of those that are gone is known."""
        self.must_be_trackable(call, entity)
        since = self._version(call.options["$deltatoken"])
        up_to, done, number = self._store.version, 0, 1
        if "$skiptoken" in call.options:
            (done, up_to), number = read_cookie(call.options["$skiptoken"])
            if type(done) is not int:
                raise CrmError(400, "0x80060888", "The paging cookie is not valid.")
        changed, gone = self._since(call, entity, since, up_to)
        # A row that changes while its delta is paged leaves the range and is in the next one. Positions count the
        # rows of the range by version, so that leaving does not shift the others: deleted ones stand after them.
        entries: list[tuple[int, Values]] = []
        shape = call.reader.shape(entity, call.options, call.included)
        for row_id, stored in changed:
            entries.append((stored.version, shape(call.reader.shown(entity, row_id, stored))))
        beyond = up_to + 1
        for version, row_id in gone:
            deleted = {
                "@odata.context": f"{self._base_url}/$metadata#{entity.set}/$deletedEntity",
                "id": row_id,
                "reason": "deleted",
            }
            entries.append((beyond + version, deleted))
        left = [entry for entry in entries if entry[0] > done]
        size = page_size(call.preferences)
        page = left[:size]
        body: Values = {"@odata.context": f"{context_of(call, entity, self._base_url)}/$delta"}
        kept = without(call.request.query, "$skiptoken")
        if len(page) < len(left):
            cookie = write_cookie(entity, [], number + 1, [page[-1][0], up_to], tracking=True)
            body["@odata.nextLink"] = f"{self._base_url}/{entity.set}?{kept}$skiptoken={cookie}"
        else:
            body["@odata.deltaLink"] = self.link(entity, kept, up_to)
        body["value"] = [row for _, row in page]
        reply = ok(body)
        prefer(reply, "odata.track-changes")
        if "odata.maxpagesize" in call.preferences:
            prefer(reply, f"odata.maxpagesize={size}")
        return reply

    def _version(self, token: str) -> int:
        """After which version a delta link asks. Raises CrmError for one that is too old."""
        version, _, stamp = token.partition("!")
        try:
            issued = dt.datetime.strptime(stamp, "%m/%d/%Y %H:%M:%S").replace(tzinfo=dt.timezone.utc)
            since = int(version)
        except ValueError as error:
            raise CrmError(400, "0x80060888", "The delta token is not valid.") from error
        oldest = self._store.clock.now_s() - DAY_S * int(str(setting(self._records, "expirechangetrackingindays")))
        if since <= self._store.fact("delta_floor", -1) or issued.timestamp() < oldest:
            raise CrmError(
                400,
                "0x80044352",
                "Version stamp associated with the client has expired. Please perform a full sync.",
            )
        return since

    def _since(
        self, call: Call, entity: Entity, since: int, up_to: int
    ) -> tuple[list[tuple[str, Stored]], list[tuple[int, str]]]:
        """What changed and may be read; whose a deleted row was, nobody knows any more."""
        changed, gone = self._store.table(entity.logical).changed_since(since, up_to=up_to)
        if not call.caller.unrestricted:
            seen = call.caller.sees(entity)
            changed = [(row_id, stored) for row_id, stored in changed if seen(row_id, stored.values)]
        return changed, gone
