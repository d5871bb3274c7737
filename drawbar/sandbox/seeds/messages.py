"""The messages of Dataverse that a step can be registered for, by table: rows that clients ask for before they do.

Planted last and with ids of their own, so that no other row has another id or version because of them.
Source: https://learn.microsoft.com/power-apps/developer/data-platform/bulk-operations, availability
"""

from __future__ import annotations

from drawbar.sandbox.seeds.ground import Bed, Ground

_OF_PLATFORM = frozenset(
    (
        "sdkmessage",
        "sdkmessagefilter",
        "serviceendpoint",
        "sdkmessageprocessingstep",
        "sdkmessageprocessingstepimage",
    )
)


def plant_messages(ground: Ground, *, word: str = "messages") -> None:
    """What is not there yet, of every table that has rows of business. Ids follow from the word."""
    _Messages(ground, word).plant()


class _Messages(Bed):
    def plant(self) -> None:
        store = self._ground.crm.store
        there = {
            (stored.values["sdkmessageid"], stored.values["primaryobjecttypecode"])
            for stored in store.table("sdkmessagefilter").rows.values()
        }
        for message_id, stored in store.table("sdkmessage").rows.items():
            message = stored.values["name"]
            for entity in self._ground.crm.records.entities.values():
                if entity.logical in _OF_PLATFORM or (message.endswith("Multiple") and not entity.bulk):
                    continue
                if entity.logical == "organization" and message != "Update":
                    continue  # there is one, for good
                if (message_id, entity.logical) not in there:
                    body = {
                        "name": f"{message} of {entity.logical}",
                        "primaryobjecttypecode": entity.logical,
                        "sdkmessageid@odata.bind": f"/sdkmessages({message_id})",
                    }
                    self._in_crm("sdkmessagefilters", body)
