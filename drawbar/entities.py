"""What the adapters must know of each entity: its set, keys, kinds of fields and lookups; and what both systems share.

Pure. Sources: the field tables of Business Central's API v2.0 and of the Dataverse Web API; a custom lookup's
navigation is its schema name, and letter case counts (`bcbi_CompanyId`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Protocol, Union
from urllib.parse import quote

from schemas.records import MatchTest, Observed, System, Value, Values

ZERO_GUID = "00000000-0000-0000-0000-000000000000"


class Kind(str, Enum):
    """How a field travels. TEXT stands for every field that is not listed: its JSON type says the rest."""

    TEXT = "text"
    CODE = "code"  # upper case, compared without regard to case
    GUID = "guid"
    ENUM = "enum"
    AMOUNT = "amount"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A reference to another table. With one target the value is its id, with several it is `entity:id`."""

    navigation: str  # the name that `@odata.bind` takes, `{target}` in it for the entity; letter case counts
    targets: Mapping[str, str]  # entity -> entity set
    columns: Mapping[str, str] = field(default_factory=dict)  # of several targets: entity -> column that holds its id

    @property
    def is_polymorphic(self) -> bool:
        return len(self.targets) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """A field that a navigation holds: `take` of the first of its rows where `where` has this value."""

    navigation: str
    where: tuple[str, str]
    take: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstOf:
    """The first of these fields of the row that is not blank."""

    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A field that all rows of another set say together, each day anew: `of` gives it by `key`, as of a date."""

    entity_set: str
    key: str
    of: Callable[[Sequence[Mapping[str, Any]], date], Mapping[str, Value]]


Derived = Union[Expanded, FirstOf, Joined]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One table of one system. Fields that are in neither `kinds` nor `lookups` are text, whole numbers or booleans.

    `composites`: a field that several columns hold together, as text with a tab between each two. `derived`: fields
    that are not columns of the row itself; they are read, never written.
    """

    system: System
    name: str
    entity_set: str
    id_field: str
    business_keys: tuple[str, ...] = ()
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    lookups: Mapping[str, Lookup] = field(default_factory=dict)
    composites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    derived: Mapping[str, Derived] = field(default_factory=dict)

    @property
    def changing(self) -> frozenset[str]:
        """Fields that change without the version of their row."""
        return frozenset(name for name, item in self.derived.items() if not isinstance(item, FirstOf))

    def kind(self, name: str) -> Kind:
        return Kind.GUID if name == self.id_field else self.kinds.get(name, Kind.TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchQuery:
    """One request that looks for matches: a `$filter` and the places of the tests that it answers."""

    tests: tuple[int, ...]
    filter: str


class SystemAdapter(Protocol):
    """What both systems do in their own way: addresses, values out and in, filters. Pure."""

    @property
    def system(self) -> System: ...

    def entity(self, name: str) -> Entity:
        """Raises KeyError for an entity that the adapter does not know."""
        ...

    def collection_path(self, entity: Entity) -> str: ...

    def key_path(self, entity: Entity, record_id: str) -> str: ...

    def select(self, entity: Entity, fields: Sequence[str]) -> str:
        """The `$select` that `to_observed` needs for `fields`; version, order and time of change come with it."""
        ...

    def expand(self, entity: Entity, fields: Sequence[str]) -> str:
        """The `$expand` that `to_observed` needs for `fields`; blank for none."""
        ...

    def to_observed(self, entity: Entity, row: Mapping[str, Any], fields: Sequence[str]) -> Observed:
        """`row` in neutral values. A field that the row does not have is left out: unknown, not blank.

        Raises ValueError when the row has no id, version or time of change, so is not what the API promises.
        """
        ...

    def to_body(self, entity: Entity, values: Values) -> dict[str, Any]:
        """`values` as the system takes them; amounts stay Decimal. Raises ValueError naming a field it cannot put."""
        ...

    def match_queries(
        self, entity: Entity, tests: Sequence[MatchTest], *, within: Values, within_blank_or: Values
    ) -> tuple[MatchQuery, ...]:
        """The requests that find the records that meet any of `tests`, all of `within`, and for each of
        `within_blank_or` hold its value or nothing. Letter case is ignored.
        """
        ...


def with_query(path: str, options: Mapping[str, str]) -> str:
    """`path?name=value&…` with the values percent-encoded; options that are blank are left out."""
    text = "&".join(f"{name}={quote(value, safe=_QUERY_SAFE)}" for name, value in options.items() if value)
    return f"{path}?{text}" if text else path


def parse_time(text: str) -> datetime:
    """Aware UTC from `2026-03-02T09:15:27.5Z`, with any number of fraction digits. Raises ValueError."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("not a time")
    whole, fraction = found[1], (found[2] or "")[:6].ljust(6, "0")
    return datetime.fromisoformat(f"{whole}.{fraction}").replace(tzinfo=timezone.utc)


def identity_of(entity: Entity, row: Mapping[str, Any], *, modified: str) -> tuple[str, str, datetime]:
    """Id, ETag and time of the last change, which both systems put into each row. `modified`: the field of the time.

    Raises ValueError when one of them is not there.
    """
    try:
        return str(row[entity.id_field]).lower(), str(row["@odata.etag"]), parse_time(row[modified])
    except (KeyError, TypeError) as fault:
        raise ValueError(f"a row of {entity.entity_set} without id, ETag or {modified}") from fault


def amount(value: float | str | Decimal) -> Decimal:
    """The number without trailing zeros and without exponent: 25000.00 is 25000. Raises ValueError."""
    try:
        plain = Decimal(str(value)).normalize()
    except InvalidOperation as fault:
        raise ValueError("not a number") from fault
    if not plain.is_finite():
        raise ValueError("not a number")
    return plain.quantize(Decimal(1)) if plain == plain.to_integral_value() else plain


def number_or_text(value: Any) -> Value:
    """A JSON scalar whose kind is not known. Raises ValueError for anything else."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (Decimal, float)):
        return amount(value)
    raise ValueError(f"a {type(value).__name__} where a scalar belongs")


_QUERY_SAFE = "$,()'*:@!"  # what OData puts into query values and a query may hold as it is (RFC 3986, 3.4)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|\+00:00)")


# --- the ERP ------------------------------------------------------------------------------------------------------


def _erp(
    name: str, entity_set: str, *business_keys: str, derived: Mapping[str, Derived] | None = None, **kinds: str
) -> Entity:
    listed = {field_name: Kind(kind) for kind, names in kinds.items() for field_name in names.split()}
    always = {"lastModifiedDateTime": Kind.TIME}
    return Entity(
        system=System.ERP,
        name=name,
        entity_set=entity_set,
        id_field="id",
        business_keys=business_keys,
        kinds=listed | always,
        derived=derived or {},
    )


def exchange_rates(rates: Sequence[Mapping[str, Any]], today: date) -> dict[str, Value]:
    """Units of each currency for one of the company's own, as of a day, rounded to 10 decimals (R322).

    `rates`: rows of `currencyExchangeRates`. The last rate that has begun counts; one that is given in relation to a
    third currency is multiplied by that one's. A currency without a rate, or with a rate of zero, is left out.
    """
    begun: dict[str, Mapping[str, Any]] = {}
    for row in sorted(rates, key=lambda row: str(row["startingDate"])):
        if str(row["startingDate"]) <= today.isoformat():
            begun[str(row["currencyCode"]).upper()] = row

    def rate(code: str, seen: tuple[str, ...] = ()) -> Decimal | None:
        if not code:
            return Decimal(1)
        row = begun.get(code)
        if row is None or code in seen:
            return None
        here, there = amount(row["exchangeRateAmount"]), amount(row["relationalExchangeRateAmount"])
        related = rate(str(row.get("relationalCurrencyCode") or "").upper(), (*seen, code))
        return here / there * related if here and there and related else None

    found = {code: rate(code) for code in begun}
    return {code: amount(round(value, 10)) for code, value in found.items() if value}


_ERP_ENTITIES = (
    _erp(
        "customer",
        "customers",
        "number",
        code="number country postalCode salespersonCode currencyCode",
        guid="taxAreaId currencyId paymentTermsId shipmentMethodId paymentMethodId",
        enum="type blocked",
        amount="balanceDue creditLimit",
        boolean="taxLiable",
        derived={
            "companyContactNumber": Expanded(
                navigation="contactsInformation", where=("contactType", "Company"), take="contactNumber"
            )
        },
    ),
    _erp(
        "contact",
        "contacts",
        "number",
        code="number companyNumber country postalCode",
        enum="type contactBusinessRelation",
        boolean="privacyBlocked",
        date="lastInteractionDate",
    ),
    _erp(
        "salesperson",
        "salespeoplePurchasers",
        "code",
        code="code",
        amount="commisionPercent",
        boolean="privacyBlocked blocked",
    ),
    _erp(
        "paymentTerm",
        "paymentTerms",
        "code",
        code="code",
        amount="discountPercent",
        boolean="calculateDiscountOnCreditMemos",
    ),
    _erp("shipmentMethod", "shipmentMethods", "code", code="code"),
    _erp(
        "currency",
        "currencies",
        "code",
        code="code",
        amount="amountRoundingPrecision exchangeRate",
        derived={
            "exchangeRate": Joined(entity_set="currencyExchangeRates", key="code", of=exchange_rates),
            "symbolOrCode": FirstOf(fields=("symbol", "code")),
        },
    ),
    _erp(
        "companyInformation",
        "companyInformation",  # a set of one record, with a singular name
        code="country postalCode currencyCode",
        date="currentFiscalYearStartDate",
    ),
)

# --- the CRM ------------------------------------------------------------------------------------------------------


def _to(entity: str, entity_set: str, navigation: str) -> Lookup:
    return Lookup(navigation=navigation, targets={entity: entity_set})


_OWNER = Lookup(
    navigation="ownerid",
    targets={"systemuser": "systemusers", "team": "teams"},
    columns={"systemuser": "_owninguser_value", "team": "_owningteam_value"},
)
_PARENT_CUSTOMER = Lookup(
    navigation="parentcustomerid_{target}",
    targets={"account": "accounts", "contact": "contacts"},
    columns={"account": "_accountid_value", "contact": "_parentcontactid_value"},
)


def _crm(
    name: str,
    entity_set: str,
    *business_keys: str,
    lookups: Mapping[str, Lookup] | None = None,
    composites: Mapping[str, tuple[str, ...]] | None = None,
    **kinds: str,
) -> Entity:
    listed = {field_name: Kind(kind) for kind, names in kinds.items() for field_name in names.split()}
    always = {"modifiedon": Kind.TIME, "createdon": Kind.TIME, "versionnumber": Kind.INTEGER}
    return Entity(
        system=System.CRM,
        name=name,
        entity_set=entity_set,
        id_field=f"{name}id",
        business_keys=business_keys,
        kinds=listed | always,
        lookups=lookups or {},
        composites=composites or {},
    )


_CRM_ENTITIES = (
    _crm(
        "account",
        "accounts",
        "accountnumber",
        lookups={
            "ownerid": _OWNER,
            "transactioncurrencyid": _to("transactioncurrency", "transactioncurrencies", "transactioncurrencyid"),
            "bcbi_companyid": _to("bcbi_company", "bcbi_companies", "bcbi_CompanyId"),
            "parentaccountid": _to("account", "accounts", "parentaccountid"),
            "primarycontactid": _to("contact", "contacts", "primarycontactid"),
            "defaultpricelevelid": _to("pricelevel", "pricelevels", "defaultpricelevelid"),
            "preferredsystemuserid": _to("systemuser", "systemusers", "preferredsystemuserid"),
        },
        amount="creditlimit creditlimit_base marketcap marketcap_base revenue revenue_base exchangerate",
    ),
    _crm(
        "contact",
        "contacts",
        lookups={
            "ownerid": _OWNER,
            "parentcustomerid": _PARENT_CUSTOMER,
            "transactioncurrencyid": _to("transactioncurrency", "transactioncurrencies", "transactioncurrencyid"),
            "bcbi_companyid": _to("bcbi_company", "bcbi_companies", "bcbi_CompanyId"),
        },
        composites={"fullname": ("firstname", "middlename", "lastname")},
        amount="creditlimit creditlimit_base exchangerate",
    ),
    _crm(
        "systemuser",
        "systemusers",
        "internalemailaddress",
        "domainname",
        lookups={
            "businessunitid": _to("businessunit", "businessunits", "businessunitid"),
            "parentsystemuserid": _to("systemuser", "systemusers", "parentsystemuserid"),
        },
        guid="applicationid azureactivedirectoryobjectid",
    ),
    _crm(
        "team",
        "teams",
        "name",
        lookups={
            "businessunitid": _to("businessunit", "businessunits", "businessunitid"),
            "administratorid": _to("systemuser", "systemusers", "administratorid"),
        },
    ),
    _crm("transactioncurrency", "transactioncurrencies", "isocurrencycode", amount="exchangerate"),
    _crm(
        "bcbi_company",
        "bcbi_companies",
        "bcbi_externalid",
        lookups={"bcbi_defaultowningteamid": _to("team", "teams", "bcbi_DefaultOwningTeamId")},
    ),
)

_ENTITIES: Mapping[tuple[System, str], Entity] = {
    (entity.system, entity.name): entity for entity in (*_ERP_ENTITIES, *_CRM_ENTITIES)
}


def entity_of(system: System, name: str) -> Entity:
    """Raises KeyError for an entity that the adapters do not know."""
    return _ENTITIES[system, name]


def entities_of(system: System) -> tuple[Entity, ...]:
    """All entities of one system."""
    return tuple(entity for entity in _ENTITIES.values() if entity.system is system)
