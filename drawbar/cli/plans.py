"""Plans as the command line makes, shows and orders them: for `drawbar sync` and `drawbar couplings match`."""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from drawbar.cli.carrying_out import Task
from drawbar.cli.orders import order_message
from drawbar.cli.running import Running, plural

if TYPE_CHECKING:
    from processors.mapping import EntityMapping
    from processors.planning import Plan, Planned
    from schemas.coupling import Row
    from schemas.records import Order

SHOWN = 5  # records, or groups, that are named of each kind

TITLES = {
    "coupled": "coupled already",
    "orphan": "coupled, one side gone",
    "match": "will be coupled",
    "ambiguous": "ambiguous, left to a person",
    "create": "will be made",
    "waiting": "wait for another record",
    "refused": "cannot be carried",
    "held": "refused before, letter open",
    "outside": "outside the filter",
    "uncoupled": "uncoupled by hand",
    "alone": "without match, nothing is made",
}
WAYS = {"to_crm": "in the CRM", "to_erp": "in the ERP"}


def new_batch(now: datetime) -> str:
    """An id that sorts by time and can be typed."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def plan_of(
    system: Running, mapping: str | None, *, create: str = "", use: str = "", uncoupled_too: bool = False
) -> Plan:
    """The plan by the rows as they are now. Raises UsageError for a mapping that does not flow."""
    from drawbar.rows import suggestion
    from processors.coupling import Fingerprints
    from processors.planning import make_plan
    from schemas.errors import UsageError

    if mapping is not None and mapping not in system.mappings:
        raise UsageError(f"no mapping is called {mapping!r}", next_step=suggestion(mapping, list(system.mappings)))
    if mapping is not None and system.mappings[mapping].role != "pair":
        raise UsageError(
            f"mapping {mapping} is only looked up", next_step="drawbar mappings list shows those that flow"
        )
    settings = system.settings
    return make_plan(
        system.rows.rows().values(),
        system.mappings,
        prints=Fingerprints.of_key(settings.fingerprint_key.get_secret_value()),
        company_id=settings.erp.company_id,
        only=mapping,
        create=create,
        use=use,
        uncoupled_too=uncoupled_too,
    )


def couple_task(one: Planned, batch: str, *, by: str, use: str) -> Task:
    """The order that couples a planned match, and how it is followed. The same plan gives the same order."""
    from schemas.records import Order, OrderKind, derived_id

    order_id = derived_id("batch", batch, one.mapping, one.erp_id, one.crm_id)
    order = Order(
        order_id=order_id, kind=OrderKind.COUPLE, by=by, erp_id=one.erp_id, crm_id=one.crm_id, use=use, batch=batch
    )
    return task_of(one, order, home=one.crm_id)


def task_of(one: Planned, order: Order | None, *, home: str) -> Task:
    from schemas.records import home_key

    message = order_message(order, mapping=one.mapping, home=home) if order is not None else None
    keys = (home_key(one.mapping, one.home), *([home_key(one.mapping, home)] if home != one.home else []))
    return Task(
        keys=keys,
        message=message,
        order_id=order.order_id if order is not None else "",
        is_done=partial(_is_done, one),
        is_ended=partial(_is_ended, one),
    )


def _is_done(one: Planned, row: Row | None, answer: str) -> bool:
    from processors.planning import How, end_of

    return end_of(one, row, answer=answer).how is How.AS_PLANNED


def _is_ended(one: Planned, row: Row | None, answer: str) -> bool:
    from processors.planning import How, end_of

    return end_of(one, row, answer=answer).how is not How.OPEN


# --- in words ----------------------------------------------------------------------------------------------------


def first_of(records: Sequence[Any], *, every: bool) -> Sequence[Any]:
    return records if every else records[:SHOWN]


def describe_plan(
    made: Plan, mapping: EntityMapping, *, every: bool, only: Iterable[str] | None = None, all_by: str = "--all"
) -> Iterator[str]:
    """A plan in words: of each fate the number, the causes, and the first records; `all_by` names the rest."""
    from processors.planning import Fate, ambiguous_groups, refs_of

    yield f"{mapping.name}: {plural(len(made.of(mapping.name)), 'record or pair', 'records and pairs')}"
    for fate in Fate:
        found = made.of(mapping.name, fate)
        if not found or (only is not None and fate.value not in only):
            continue
        yield f"  {len(found):>7,}  {TITLES[fate.value]}"
        for cause, count in Counter(_cause(one) for one in found).most_common(None if every else SHOWN):
            if cause:
                yield f"  {'':>7}    {count:,}  {cause}"
        writes = Counter(direction for one in found for direction in one.writes)
        for direction in ("to_crm", "to_erp"):
            if writes[direction]:
                yield f"  {'':>7}    {writes[direction]:,}  then written {WAYS[direction]}"
        for cause, count in Counter(one.waits for one in found).most_common(None if every else SHOWN):
            if cause:
                yield f"  {'':>7}    {count:,}  then a dead letter: {cause}"
        yield from _clashes(found)
        if fate is Fate.AMBIGUOUS:
            groups = ambiguous_groups(made, mapping)
            for number, group in enumerate(first_of(groups, every=every), 1):
                yield f"  {'':>7}    group {number}: {group[0]}"
                yield from (f"  {'':>7}    {'':>{len(f'group {number}: ')}}{ref}" for ref in group[1:])
            hidden = len(groups) - len(first_of(groups, every=every))
        elif fate is not Fate.COUPLED or every:
            for one in first_of(found, every=every):
                yield f"  {'':>7}    {'  '.join(refs_of(one, mapping))}"
            hidden = len(found) - len(first_of(found, every=every))
        else:
            hidden = 0
        if hidden:
            yield f"  {'':>7}    and {hidden:,} more: {all_by} names them"


def _cause(one: Planned) -> str:
    if one.fate.value == "match":
        return f"by {one.why}"
    if one.fate.value == "create":
        return WAYS[one.direction]
    return one.why


def _clashes(found: Sequence[Planned]) -> Iterator[str]:
    """Where both sides hold a value of their own: how many pairs, who wins, in which fields."""
    pairs: Counter[tuple[str, str]] = Counter()
    fields: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one in found:
        for clash in one.clashes:
            kind = (clash.winner, clash.reason)
            pairs[kind] += 1
            fields[kind].update(clash.fields)
    for (winner, reason), count in pairs.most_common():
        names = ", ".join(f"{name} {number:,}" for name, number in fields[winner, reason].most_common(SHOWN))
        wins = f"{winner.upper()} wins" if winner else "nobody wins"
        yield f"  {'':>7}    {count:,}  clash, {wins} ({reason}): {names}"
