"""Which brakes are on, and whether too many records are about to be changed.

Pure: brakes and rows go in, answers come out; the time is an argument. Each decide process keeps one `Brakes`, fed with
all of topic `brakes` and all rows of all processes, as the reference view is: so what counts is the total, and it
survives every restart, because each row remembers when a write to a record that was in step last left.

Such records are counted as distinct ones: a write in one direction to a pair that had once agreed in all its fields.
The first synchronisation is none: neither a record that is made nor the first agreement of a coupling counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from schemas.brakes import ALL, Brake, brake_key
from schemas.coupling import Row
from schemas.errors import MassUpdate

_NEVER = datetime.min.replace(tzinfo=timezone.utc)
_START = Brake(on=False, by="", at=_NEVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """More records than `at_least`, and than `share` of the coupled ones, within `window`, are too many."""

    share: float = 0.2  # 1: never too many
    at_least: int = 50
    window: timedelta = timedelta(hours=1)

    def allowed(self, coupled: int) -> int:
        return max(self.at_least, int(self.share * coupled))


@dataclass(slots=True)
class _Count:
    """The records changed lately in one direction of one mapping. Those that fell out of the window are forgotten."""

    changed: dict[str, datetime] = field(default_factory=dict)  # home -> when last
    _oldest: list[tuple[datetime, str]] = field(default_factory=list)  # a heap, with outdated entries in it

    def note(self, home: str, at: datetime) -> None:
        if at > self.changed.get(home, _NEVER):
            self.changed[home] = at
            heapq.heappush(self._oldest, (at, home))

    def forget(self, until: datetime) -> None:
        while self._oldest and self._oldest[0][0] <= until:
            at, home = heapq.heappop(self._oldest)
            if self.changed.get(home) == at:
                del self.changed[home]


class Brakes:
    """`observing`: this process was started to write nothing, whatever the brakes say."""

    def __init__(self, *, observing: bool = False, limits: Limits | None = None) -> None:
        self.observing = observing
        self._limits = limits or Limits()
        self._set: dict[str, Brake] = {}  # as the topic has it
        self._ours: dict[str, Brake] = {}  # put on by this process, and not read back yet
        self._counts: dict[str, _Count] = {}

    # --- which are on ---------------------------------------------------------------------------------------------

    def take(self, key: str, brake: Brake) -> bool:
        """Take over what the topic says. Whether this put the brake on, which was off before."""
        before = self._set.get(key, _START)
        self._set[key] = brake
        self._ours.pop(key, None)
        return brake.on and not before.on

    def on(self, mapping: str, direction: str) -> Brake | None:
        """The brake that keeps back what goes in this direction now."""
        key = brake_key(mapping, direction)
        for found in (self._set.get(key), self._ours.get(key), self._set.get(ALL)):
            if found is not None and found.on:
                return found
        return None

    def keeps_back(self, mapping: str, direction: str) -> bool:
        return self.observing or self.on(mapping, direction) is not None

    def all_on(self) -> Iterator[tuple[str, Brake]]:
        """Key and brake of each that is on."""
        for key, brake in sorted({**self._set, **self._ours}.items()):
            if brake.on:
                yield key, brake

    def stop(self, mapping: str, direction: str, *, by: str, now: datetime) -> tuple[str, Brake]:
        """Put the brake on here and now, because too many records are about to be changed. What others have to be told:
        the key and the brake.
        """
        key = brake_key(mapping, direction)
        before = self._set.get(key, _START)
        brake = replace(before, on=True, by=by, at=now, reason="too many records at once", code=MassUpdate.code)
        self._ours[key] = brake
        return key, brake

    # --- how much is too much -------------------------------------------------------------------------------------

    def note(self, row: Row, *, now: datetime) -> None:
        """Count what a row says of its last writes; a row may be seen any number of times."""
        for direction, at in (row.pair.updated if row.pair is not None else {}).items():
            key = brake_key(row.mapping, direction)
            if at > self._counted_from(key, now):
                self._counts.setdefault(key, _Count()).note(row.id, at)

    def is_too_much(self, mapping: str, direction: str, home: str, *, coupled: int, now: datetime) -> bool:
        """Whether a write to this record, besides those counted, would be one too many."""
        key = brake_key(mapping, direction)
        if self._limits.share >= 1 or now <= (self._set.get(key, _START).free_until or _NEVER):
            return False
        changed = self._changed(key, now)
        return home not in changed and len(changed) >= self._limits.allowed(coupled)

    def was_let_through(self, mapping: str, direction: str, since: datetime | None) -> bool:
        """Whether a person saw what was kept back since then, and let it happen."""
        at = self._set.get(brake_key(mapping, direction), _START).let_through_at
        return since is not None and at is not None and since <= at

    def figures(self, coupled: Mapping[str, int], *, now: datetime) -> dict[str, dict[str, int]]:
        """Per mapping and direction that anything counts for: the records changed, and how many may be. `coupled`: the
        coupled records of each mapping.
        """
        return {
            key: {"changed": len(self._changed(key, now)), "allowed": self._limits.allowed(coupled[mapping])}
            for key in sorted(self._counts)
            if (mapping := key.rpartition(":")[0]) in coupled
        }

    def _changed(self, key: str, now: datetime) -> Mapping[str, datetime]:
        count = self._counts.setdefault(key, _Count())
        count.forget(self._counted_from(key, now))
        return count.changed

    def _counted_from(self, key: str, now: datetime) -> datetime:
        """What left up to then does not count."""
        brake = self._set.get(key, _START)
        return max(now - self._limits.window, brake.let_through_at or _NEVER, brake.free_until or _NEVER)


def paused(keys: Iterable[str], before: Mapping[str, Brake], *, by: str, at: datetime, reason: str) -> dict[str, Brake]:
    """What has to be set so that these brakes are on. One that is on stays as it is."""
    return {
        key: replace(before.get(key, _START), on=True, by=by, at=at, reason=reason, code="")
        for key in keys
        if not before.get(key, _START).on
    }


def resumed(
    keys: Iterable[str], before: Mapping[str, Brake], every: Iterable[str], *, by: str, at: datetime
) -> dict[str, Brake]:
    """What has to be set, in this order, so that none of these brakes is on that a person put on. `every`: all keys
    there are; when the brake of everything is on, it is first put on for each of the others alone.

    One that went on by itself stays on: it is let go by `let_through`.
    """
    wanted = tuple(keys)
    everything = before.get(ALL, _START)
    found: dict[str, Brake] = {}
    if everything.on:
        rest = () if ALL in wanted else tuple(key for key in every if key not in wanted)
        found |= paused(rest, before, by=everything.by, at=everything.at, reason=everything.reason)
        found[ALL] = replace(everything, on=False, by=by, at=at)
    for key in every if ALL in wanted else wanted:
        brake = before.get(key, _START)
        if brake.on and not brake.is_automatic:
            found[key] = replace(brake, on=False, by=by, at=at)
    return found


def let_through(brake: Brake, *, by: str, at: datetime, free_for: timedelta | None) -> Brake:
    """The brake off: what it kept back happens and does not count, nor does anything in the time that is given."""
    return replace(
        brake, on=False, by=by, at=at, code="", let_through_at=at, free_until=at + free_for if free_for else None
    )
