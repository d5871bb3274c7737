"""Where a change goes: to the home of its record, once per mapping that knows the entity.

Pure. Route keeps no state and reads no row: which pair a record belongs to is known at its home alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from processors.mapping import EntityMapping
from schemas.codec import decode
from schemas.records import ChangeEvent, System, Work
from schemas.topics import changes_topic

Routes = Mapping[tuple[System, str], tuple[str, ...]]  # system and entity -> names of its mappings


def routes_of(mappings: Iterable[EntityMapping]) -> Routes:
    found: dict[tuple[System, str], list[str]] = defaultdict(list)
    for mapping in mappings:
        for system in System:
            entity = mapping.entity_in(system)
            if entity is not None:
                found[system, entity].append(mapping.name)
    return {source: tuple(names) for source, names in found.items()}


def changes_topics(routes: Routes) -> tuple[str, ...]:
    """The topics that route reads."""
    return tuple(sorted(changes_topic(system.value, entity) for system, entity in routes))


def to_works(value: bytes | None, routes: Routes) -> tuple[Work, ...]:
    """The messages on `pairs.work` that a message of a changes topic leads to; none for a tombstone.

    Raises Undecodable when the bytes are no change event.
    """
    if value is None:
        return ()  # follows a delete that was an event of its own
    event = decode(ChangeEvent, value)
    return tuple(
        Work(message_id=f"{event.event_id}:{mapping}", mapping=mapping, home=event.ref.id, change=event)
        for mapping in routes.get((event.ref.system, event.ref.entity), ())
    )
