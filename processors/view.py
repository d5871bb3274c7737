"""The reference view: which records are coupled, by id and by business key, of every mapping.

Pure: rows go in, answers come out. Each decide process keeps one, fed with *all* partitions of `couplings`. It lags;
so "not coupled" may make a change wait, and whatever is coupled later is reported by `apply`, so that what waited for
it can be decided again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from processors.mapping import EntityMapping
from schemas.coupling import Pair, PairState, Row
from schemas.records import System, Value


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the view keeps of one row: per side the id and the business key, and whether both are coupled."""

    ids: Mapping[System, str]
    keys: Mapping[System, str]
    coupled: bool


_NOTHING = _Entry({}, {}, coupled=False)


@dataclass(slots=True)
class _Known:
    """What the view keeps of one mapping."""

    mapping: EntityMapping
    keys: dict[System, dict[str, str]] = field(default_factory=lambda: {System.ERP: {}, System.CRM: {}})
    key_of: dict[System, dict[str, str]] = field(default_factory=lambda: {System.ERP: {}, System.CRM: {}})
    coupled: dict[System, dict[str, tuple[str, ...]]] = field(default_factory=lambda: {System.ERP: {}, System.CRM: {}})
    rows: dict[str, _Entry] = field(default_factory=dict)


def normal_key(value: Value) -> str:
    """Business keys are compared without regard to case or blanks at the ends."""
    return str(value).strip().upper()


class ReferenceView:
    """`company_id`: the ERP company that is kept in step."""

    def __init__(self, mappings: Iterable[EntityMapping], *, company_id: str) -> None:
        self._known = {mapping.name: _Known(mapping) for mapping in mappings}
        self._company_id = company_id.lower()
        self.company_crm_id: str | None = None
        self.default_team: str | None = None
        self.local_currency: str | None = None

    def entity(self, mapping: str, system: System) -> str:
        return str(self._known[mapping].mapping.entity_in(system))

    def erp_id_by_key(self, mapping: str, key: str) -> str | None:
        return self._known[mapping].keys[System.ERP].get(normal_key(key))

    def id_by_key(self, mapping: str, system: System, key: str) -> str | None:
        return self._known[mapping].keys[system].get(normal_key(key))

    def key_by_id(self, mapping: str, system: System, record_id: str) -> str | None:
        return self._known[mapping].key_of[system].get(record_id)

    def coupled_to(self, mapping: str, system: System, record_id: str) -> str | None:
        """Id in the other system of the record coupled to this one."""
        partners = self._known[mapping].coupled[system].get(record_id)
        return partners[-1] if partners else None

    def coupled_count(self, mapping: str) -> int:
        """How many ERP records of the mapping are coupled."""
        return len(self._known[mapping].coupled[System.ERP])

    def is_known(self, mapping: str, system: System, record_id: str) -> bool:
        return record_id in self._known[mapping].key_of[system]

    def currency_id(self, iso_code: str) -> str | None:
        """Id of the CRM currency with this ISO code."""
        for known in self._known.values():
            if known.mapping.crm == "transactioncurrency":
                return known.keys[System.CRM].get(normal_key(iso_code))
        return None

    def apply(self, row: Row) -> tuple[str, ...]:
        """Take a row in. Returns what can be relied on from now on, in the words that waiting rows name it by:
        `erp:salesperson:<id>` and `crm:systemuser:<id>` for a new coupling, `<mapping>:<KEY>` for a new business key,
        `company`, `local-currency`, `currency:<ISO>`.
        """
        known = self._known.get(row.mapping)
        if known is None:
            return ()
        before = known.rows.pop(row.id, _NOTHING)
        _forget(known, before)
        now = _entry(known.mapping, row.pair)
        if not now.ids:
            return ()
        known.rows[row.id] = now
        news = []
        for system, record_id in now.ids.items():
            key = now.keys.get(system, "")
            known.key_of[system][record_id] = key
            if key:
                known.keys[system][key] = record_id
            if key and before.keys.get(system) != key:
                if system is System.ERP:
                    news.append(f"{known.mapping.name}:{key}")
                elif known.mapping.crm == "transactioncurrency":
                    news.append(f"currency:{key}")
        if now.coupled:
            erp_id, crm_id = now.ids[System.ERP], now.ids[System.CRM]
            # Rows are read partition by partition, so an old row may still couple what a newer one couples: both count
            # until the old one's successor is read.
            for system, record_id, partner in ((System.ERP, erp_id, crm_id), (System.CRM, crm_id, erp_id)):
                known.coupled[system][record_id] = (*known.coupled[system].get(record_id, ()), partner)
            if not before.coupled or before.ids != now.ids:
                news += [f"erp:{known.mapping.erp}:{erp_id}", f"crm:{known.mapping.crm}:{crm_id}"]
        return (*news, *self._role_news(known.mapping, row.pair))

    def _role_news(self, mapping: EntityMapping, pair: Pair | None) -> Iterable[str]:
        if mapping.role == "local-currency" and pair is not None and pair.erp is not None:
            code = normal_key(pair.erp.state.get("currencyCode") or "")
            if code and code != self.local_currency:
                self.local_currency = code
                yield "local-currency"
        if mapping.role == "company" and pair is not None and pair.crm is not None:
            external = normal_key(pair.crm.state.get(str(mapping.key.crm)) or "").lower()
            if external and external == self._company_id:
                team = pair.crm.state.get("bcbi_defaultowningteamid")
                found = (pair.crm.id, str(team) if team else None)
                if found != (self.company_crm_id, self.default_team):
                    self.company_crm_id, self.default_team = found
                    yield "company"


def _entry(mapping: EntityMapping, pair: Pair | None) -> _Entry:
    ids: dict[System, str] = {}
    keys: dict[System, str] = {}
    sides = {System.ERP: pair.erp, System.CRM: pair.crm} if pair is not None else {}
    for system, side in sides.items():
        if side is None or side.deleted:
            continue
        ids[system] = side.id
        key_field = mapping.key_in(system)
        value = side.state.get(key_field) if key_field else None
        if value is not None:
            keys[system] = normal_key(value)
    coupled = pair is not None and pair.state is PairState.COUPLED and len(ids) == len(System)
    return _Entry(ids, keys, coupled=coupled)


def _forget(known: _Known, before: _Entry) -> None:
    """Take back what one row said; another row may say the same of a record, and that stands."""
    if before.coupled:
        for system, record_id in before.ids.items():
            partners = list(known.coupled[system].pop(record_id, ()))
            if before.ids[system.other] in partners:
                partners.remove(before.ids[system.other])
            if partners:
                known.coupled[system][record_id] = tuple(partners)
    for system, record_id in before.ids.items():
        if record_id in known.coupled[system]:
            continue
        key = known.key_of[system].pop(record_id, "")
        if key and known.keys[system].get(key) == record_id:
            del known.keys[system][key]
