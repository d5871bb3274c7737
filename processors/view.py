"""The reference view: which records are coupled, by id and by business key, of every mapping.

Pure: rows go in, answers come out. Each decide process keeps one, fed with the rows of all processes. It lags; so
"not coupled" may make a change wait, and whatever is coupled later is reported by `apply`, so that what waited for it
can be decided again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from msgspec import Struct

from processors.mapping import EntityMapping, FieldMapping
from schemas.coupling import Pair, PairState, Row
from schemas.records import System, Value


class _Entry(Struct, frozen=True, gc=False):
    """What the view keeps of one row: per side the id and the business key, and whether both are coupled."""

    ids: Mapping[System, str]
    keys: Mapping[System, str]
    coupled: bool
    fields: Mapping[str, str]  # of the ERP record: those by which lines refer to it
    rates: Mapping[System, Decimal]  # of a currency


_NOTHING = _Entry({}, {}, coupled=False, fields={}, rates={})
BASE_RATE = "base-rate"  # what the rate of the CRM's base currency goes by in waiting rows


@dataclass(slots=True)
class _Known:
    """What the view keeps of one mapping."""

    mapping: EntityMapping
    keys: dict[System, dict[str, str]] = field(default_factory=lambda: {System.ERP: {}, System.CRM: {}})
    key_of: dict[System, dict[str, str]] = field(default_factory=lambda: {System.ERP: {}, System.CRM: {}})
    coupled: dict[System, dict[str, tuple[str, ...]]] = field(default_factory=lambda: {System.ERP: {}, System.CRM: {}})
    rows: dict[str, _Entry] = field(default_factory=dict)
    field_of: dict[str, Mapping[str, str]] = field(default_factory=dict)  # id of the ERP record -> field -> value
    holders: dict[str, dict[str, str]] = field(default_factory=dict)  # ERP field -> value -> id of the ERP record
    rate_line: FieldMapping | None = None


def normal_key(value: Value) -> str:
    """Business keys are compared without regard to case or blanks at the ends."""
    return str(value).strip().upper()


def relied_on(name: str) -> str:
    """How a waiting row names what it did not miss, but must be decided anew for when it changes."""
    return f"~{name}"


def is_relied_on(name: str) -> bool:
    return name.startswith("~")


class ReferenceView:
    """`company_id`: the ERP company that is kept in step."""

    def __init__(self, mappings: Iterable[EntityMapping], *, company_id: str) -> None:
        self._known = {mapping.name: _Known(mapping) for mapping in mappings}
        for known in self._known.values():
            for line in known.mapping.fields:
                other = self._known.get(line.reference or "")
                if line.refers_by_field and other is not None:
                    other.holders.setdefault(line.reference_by, {})
                if line.rate and line.enabled:
                    known.rate_line = line
        self._firsts: dict[str, list[str]] = {}
        for known in self._known.values():
            for line in known.mapping.fields:
                if line.first is not None and line.enabled and known.mapping.flows("to_crm"):
                    self._firsts.setdefault(line.first, []).append(known.mapping.name)
        self.currencies = next((name for name, known in self._known.items() if _is_of_currencies(known.mapping)), "")
        self.base_rate: Decimal | None = None
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

    def erp_id_by(self, mapping: str, erp_field: str, value: str) -> str | None:
        """Id of the ERP record whose field holds this value."""
        return self._known[mapping].holders[erp_field].get(normal_key(value))

    def value_of(self, mapping: str, erp_field: str, erp_id: str) -> str | None:
        """What a field of an ERP record holds, of those by which lines refer to it."""
        found = self._known[mapping].field_of.get(erp_id, {}).get(erp_field)
        return found if found is not None and self.erp_id_by(mapping, erp_field, found) == erp_id else None

    def coupled_to(self, mapping: str, system: System, record_id: str) -> str | None:
        """Id in the other system of the record coupled to this one."""
        partners = self._known[mapping].coupled[system].get(record_id)
        return partners[-1] if partners else None

    def wanting_first(self, mapping: str) -> Sequence[str]:
        """The mappings that have a line for the first record of this one."""
        return self._firsts.get(mapping, ())

    def coupled_count(self, mapping: str) -> int:
        """How many ERP records of the mapping are coupled."""
        return len(self._known[mapping].coupled[System.ERP])

    def is_known(self, mapping: str, system: System, record_id: str) -> bool:
        return record_id in self._known[mapping].key_of[system]

    def currency_id(self, iso_code: str) -> str | None:
        """Id of the CRM currency with this ISO code."""
        known = self._known.get(self.currencies)
        return known.keys[System.CRM].get(normal_key(iso_code)) if known is not None else None

    def apply(self, row: Row) -> tuple[str, ...]:
        """Take a row in. Returns what can be relied on from now on, in the words that waiting rows name it by:
        `erp:salesperson:<id>` and `crm:systemuser:<id>` for a new coupling, `<mapping>:<KEY>` for a new business key,
        `company`, `local-currency`, `currency:<ISO>`; `<mapping>.<field>:<VALUE>` when another record bears the value
        by which lines refer to it, or one that is coupled otherwise, `<mapping>.<field>@<id>` when a record got one;
        `base-rate` when that of the CRM's base currency is another.
        """
        known = self._known.get(row.mapping)
        if known is None:
            return ()
        before, now = known.rows.get(row.id, _NOTHING), _entry(known, row.pair)
        if now == before and known.mapping.role == "pair" and _stands(known, now):
            return ()  # as nearly always: what others know it by is what it was
        known.rows.pop(row.id, None)
        _forget(known, before)
        if not now.ids:
            return (*_field_news(known.mapping, before, now), *self._rate_news(known.mapping))
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
                elif _is_of_currencies(known.mapping):
                    news.append(f"currency:{key}")
        for name, value in now.fields.items():
            known.holders[name][value] = now.ids[System.ERP]
        if now.fields:
            known.field_of[now.ids[System.ERP]] = now.fields
        news += _field_news(known.mapping, before, now)
        if now.coupled:
            erp_id, crm_id = now.ids[System.ERP], now.ids[System.CRM]
            # Rows are read partition by partition, so an old row may still couple what a newer one couples: both count
            # until the old one's successor is read.
            for system, record_id, partner in ((System.ERP, erp_id, crm_id), (System.CRM, crm_id, erp_id)):
                known.coupled[system][record_id] = (*known.coupled[system].get(record_id, ()), partner)
            if not before.coupled or before.ids != now.ids:
                news += [f"erp:{known.mapping.erp}:{erp_id}", f"crm:{known.mapping.crm}:{crm_id}"]
        return (*news, *self._role_news(known.mapping, row.pair), *self._rate_news(known.mapping))

    def _rate_news(self, mapping: EntityMapping) -> Iterable[str]:
        """The base currency has rate 1 in the CRM: the company's own, or the only one that the ERP has a rate of."""
        known = self._known.get(self.currencies)
        if known is None or known.rate_line is None or (mapping is not known.mapping and mapping.role == "pair"):
            return
        rates = {system: _rates(known, system) for system in System}
        bases = [code for code, rate in rates[System.CRM].items() if rate == 1]
        found = [rates[System.ERP][code] for code in bases if rates[System.ERP].get(code)]
        if self.local_currency in bases:
            found = [Decimal(1)]
        base = found[0] if len(found) == 1 else None
        if base != self.base_rate:
            self.base_rate = base
            yield BASE_RATE

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


def _is_of_currencies(mapping: EntityMapping) -> bool:
    return mapping.crm == "transactioncurrency"


def _rates(known: _Known, system: System) -> dict[str, Decimal]:
    """Of the currencies, by their codes."""
    return {row.keys[system]: row.rates[system] for row in known.rows.values() if system in row.rates}


def _field_news(mapping: EntityMapping, before: _Entry, now: _Entry) -> Iterable[str]:
    """What is told of the fields by which lines refer to an ERP record: values that came, went or are coupled anew."""
    same = before.ids == now.ids and before.coupled == now.coupled
    for name in sorted({*before.fields, *now.fields}):
        old, new = before.fields.get(name), now.fields.get(name)
        if same and old == new:
            continue
        yield from (f"{mapping.name}.{name}:{value}" for value in dict.fromkeys((old, new)) if value is not None)
        if new is not None and old != new:
            yield f"{mapping.name}.{name}@{now.ids[System.ERP]}"


def _entry(known: _Known, pair: Pair | None) -> _Entry:
    mapping, line = known.mapping, known.rate_line
    fields: dict[str, str] = {}
    rates: dict[System, Decimal] = {}
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
        if system is System.ERP:
            held = {name: side.state.get(name) for name in known.holders}
            fields = {name: normal_key(value) for name, value in held.items() if value is not None}
        rate = side.state.get(line.name_in(system)) if line is not None else None
        if system in keys and isinstance(rate, (int, Decimal)):
            rates[system] = Decimal(rate)
    coupled = pair is not None and pair.state is PairState.COUPLED and len(ids) == len(System)
    return _Entry(ids, keys, coupled=coupled, fields=fields, rates=rates)


def _stands(known: _Known, entry: _Entry) -> bool:
    """Whether all that a row said is known as it said it: no other row spoke of the same records or keys since."""
    for system, record_id in entry.ids.items():
        key = entry.keys.get(system, "")
        if known.key_of[system].get(record_id) != key or (key and known.keys[system].get(key) != record_id):
            return False
        if entry.coupled and known.coupled[system].get(record_id) != (entry.ids[system.other],):
            return False
    return all(known.holders[name].get(value) == entry.ids[System.ERP] for name, value in entry.fields.items())


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
        if system is System.ERP:
            for name, value in known.field_of.pop(record_id, {}).items():
                if known.holders[name].get(value) == record_id:
                    del known.holders[name][value]
        key = known.key_of[system].pop(record_id, "")
        if key and known.keys[system].get(key) == record_id:
            del known.keys[system][key]
