"""What becomes of a value on its way across, and when two values count as equal.

Pure. `carry` turns the source value of one mapping line into what the target should hold, and `equal` says whether the
target holds it already, compared as the built-in integration compares (R197-R207: codes without regard to case, texts
cut to the shorter length, blank is blank on both sides).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation

from msgspec import Struct

from processors.mapping import Condition, Direction, EntityMapping, FieldMapping, source_of, target_of
from processors.transforms import TRANSFORMS, transformed
from processors.view import BASE_RATE, ReferenceView, normal_key, relied_on
from schemas.errors import OptionNotCoupled, OwnerNotCoupled, RecordError, ReferenceNotCoupled, ValueNotMappable
from schemas.records import System, Value, Values


class Known(Struct, frozen=True, gc=False):
    """The target should hold this."""

    value: Value
    soft: tuple[str, ...] = ()  # went on without these, or relies on them; decided again when they appear or change


class Leave(Struct, frozen=True, gc=False):
    """The target's value stays as it is."""

    reason: str
    soft: tuple[str, ...] = ()


class Missing(Struct, frozen=True, gc=False):
    """The value refers to something that is not coupled."""

    error: type[RecordError]
    missing: str
    soft: tuple[str, ...] = ()  # as in Known


class Bad(Struct, frozen=True, gc=False):
    """The value cannot be carried."""

    error: type[RecordError]


RATE_DECIMALS = 10
Carried = Known | Leave | Missing | Bad


def carry(
    line: FieldMapping,
    value: Value,
    direction: Direction,
    view: ReferenceView,
    *,
    creating: bool,
    held: Value = None,
) -> Carried:
    """What the target should hold for the source value of one line, where it holds `held` now.

    `creating`: the target record does not exist yet; a blank owner then becomes the company's team (R38).
    """
    if line.company:
        return Known(view.company_crm_id) if view.company_crm_id else Leave("company-unknown", ("company",))
    if line.team:
        return _team(view, creating=creating, otherwise="team-owned")
    if line.first is not None:
        return Leave("for-the-first-to-come")
    if line.owner is not None:
        return _carry_owner(line.owner, value, view, creating=creating)
    if line.currency:
        return _carry_currency(value, held, direction, view, creating=creating)
    if line.rate:
        return _carry_rate(value, view)
    if line.options is not None:
        return _carry_option(line, value, direction, view)
    if line.reference is not None:
        return _carry_reference(line, value, direction, view)
    return _carry_plain(line, value, direction, held)


def _carry_plain(line: FieldMapping, value: Value, direction: Direction, held: Value) -> Carried:
    try:
        value = typed(value, line.type)
    except ValueError:
        return Bad(ValueNotMappable)
    keeps = line.transform is not None and TRANSFORMS[line.transform].keeps
    if keeps and direction == "to_crm" and equal(line, transformed(held, line.transform, to_crm=False), value):
        return Known(held)
    value = transformed(value, line.transform, to_crm=direction == "to_crm")
    length = line.length_in(target_of(direction))
    if isinstance(value, str) and not value.strip():
        value = None  # a transform may leave nothing but blanks
    if isinstance(value, str):
        if line.type == "code" and direction == "to_erp":
            value = value.strip().upper() or None
        if length is not None and value is not None and len(str(value)) > length:
            value = str(value)[:length].rstrip() or None
    return Known(value)


def _carry_owner(mapping: str, code: Value, view: ReferenceView, *, creating: bool) -> Carried:
    """R38, R39, R41: blank or unknown code: the company's team for a new record, else unchanged; known but not
    coupled: the record waits.
    """
    key = str(code).strip().upper() if code else ""
    erp_id = view.erp_id_by_key(mapping, key) if key else None
    if erp_id is None:
        soft = (f"{mapping}:{key}",) if key else ()
        return _team(view, creating=creating, otherwise="owner-unknown" if key else "owner-blank", soft=soft)
    user = view.coupled_to(mapping, System.ERP, erp_id)
    if user is None:
        return Missing(OwnerNotCoupled, f"erp:{view.entity(mapping, System.ERP)}:{erp_id}")
    return Known(f"{view.entity(mapping, System.CRM)}:{user}")


def _team(view: ReferenceView, *, creating: bool, otherwise: str, soft: tuple[str, ...] = ()) -> Carried:
    """The company's team owns a new record that nobody else owns; the owner of an old one stays."""
    return Known(f"team:{view.default_team}", soft) if creating and view.default_team else Leave(otherwise, soft)


def _carry_currency(value: Value, held: Value, direction: Direction, view: ReferenceView, *, creating: bool) -> Carried:
    """R221-R227: the company's own currency is a blank or its code in the ERP; any other goes by its coupling.

    While the own one is not to be found, an account that names none is given the CRM's by the CRM: that must not come
    back, so of two records that are there neither is changed.
    """
    local = view.local_currency
    own = view.currency_id(local) if local else None
    code = normal_key(value or "") or local
    waits_softly = not local or code == local if direction == "to_crm" else not creating or value is None
    if own is None and waits_softly:
        name = f"currency:{local}" if local else "local-currency"
        return Leave("local-currency-not-in-crm" if local else "local-currency-unknown", (name,))
    if not local:
        return Missing(ReferenceNotCoupled, "local-currency")
    if direction == "to_crm":
        return Known(own) if code == local else _crm_currency(str(code), view)
    if value is None or value == own:
        # A blank is the own currency (R222), and the API may show it as the code: either is left as it stands.
        return Known(held if normal_key(held or local) == local else None)
    return _erp_currency(str(value), view)


def _crm_currency(code: str, view: ReferenceView) -> Carried:
    erp_id = view.erp_id_by_key(view.currencies, code)
    crm_id = view.coupled_to(view.currencies, System.ERP, erp_id) if erp_id else None
    if crm_id is not None:
        return Known(crm_id)
    return Missing(ReferenceNotCoupled, f"erp:currency:{erp_id}" if erp_id else f"{view.currencies}:{code}")


def _erp_currency(crm_id: str, view: ReferenceView) -> Carried:
    """The code of the coupled currency, else the ISO code, if the ERP has a currency of that."""
    mapping = view.currencies
    erp_id = view.coupled_to(mapping, System.CRM, crm_id)
    coupled = view.key_by_id(mapping, System.ERP, erp_id) if erp_id else None
    if coupled:
        return Known(coupled)
    code = view.key_by_id(mapping, System.CRM, crm_id)
    if code and view.erp_id_by_key(mapping, code):
        return Known(code)
    return Missing(ReferenceNotCoupled, f"crm:transactioncurrency:{crm_id}", (f"{mapping}:{code}",) if code else ())


def _carry_rate(value: Value, view: ReferenceView) -> Carried:
    """R322: what one unit of the CRM's base currency is in this one. Decided anew when the base's own rate changes."""
    try:
        rate = typed(value, "decimal")
    except ValueError:
        return Bad(ValueNotMappable)
    if not isinstance(rate, Decimal) or not rate:
        return Known(None)
    base = view.base_rate
    if base is None:
        return Missing(ReferenceNotCoupled, BASE_RATE)
    return Known(rate if base == 1 else round(rate / base, RATE_DECIMALS), (relied_on(BASE_RATE),))


def _carry_option(line: FieldMapping, value: Value, direction: Direction, view: ReferenceView) -> Carried:
    mapping, options = str(line.reference), line.options or {}
    if value is None:
        return Known(None)
    if direction == "to_crm":
        code = view.key_by_id(mapping, System.ERP, str(value)) if line.reference_by == "id" else str(value).upper()
        if code is None:
            return Missing(ReferenceNotCoupled, f"erp:{view.entity(mapping, System.ERP)}:{value}")
        if code not in options:
            return Missing(OptionNotCoupled, f"option:{mapping}:{code}")
        return Known(options[code])
    codes = [code for code, option in options.items() if option == value]
    if not codes:
        return Missing(OptionNotCoupled, f"option:{mapping}:{value}")
    if line.reference_by == "key":
        return Known(codes[0])
    erp_id = view.erp_id_by_key(mapping, codes[0])
    if erp_id is None:
        return Missing(ReferenceNotCoupled, f"{mapping}:{codes[0]}")
    return Known(erp_id)


def _carry_reference(line: FieldMapping, value: Value, direction: Direction, view: ReferenceView) -> Carried:
    mapping = str(line.reference)
    if value is None:
        return Known(None)
    if line.refers_by_field:
        carried = _by_field(line, mapping, str(value), direction, view)
    elif direction == "to_crm":
        erp_id = str(value) if line.reference_by == "id" else view.erp_id_by_key(mapping, str(value))
        carried = _coupled_crm(line, mapping, erp_id, f"{mapping}:{value}", view)
    else:
        missing = f"crm:{view.entity(mapping, System.CRM)}:{_bare(line, str(value))}"
        erp_id = view.coupled_to(mapping, System.CRM, _bare(line, str(value)))
        found = erp_id if line.reference_by == "id" or not erp_id else view.key_by_id(mapping, System.ERP, erp_id)
        carried = Known(found) if found is not None else Missing(ReferenceNotCoupled, missing)
    if isinstance(carried, Missing) and line.clear_when_uncoupled:
        return Known(None, (carried.missing, *carried.soft))
    return carried


def _by_field(line: FieldMapping, mapping: str, value: str, direction: Direction, view: ReferenceView) -> Carried:
    """The ERP field holds what a field of the other record holds. That may move to another record at any time, so what
    was found is relied on, not merely looked up.
    """
    field = line.reference_by
    if direction == "to_crm":
        name = f"{mapping}.{field}:{normal_key(value)}"
        soft = (relied_on(name),)
        return _coupled_crm(line, mapping, view.erp_id_by(mapping, field, value), name, view, soft)
    crm_id = _bare(line, value)
    erp_id = view.coupled_to(mapping, System.CRM, crm_id)
    if erp_id is None:
        return Missing(ReferenceNotCoupled, f"crm:{view.entity(mapping, System.CRM)}:{crm_id}")
    found = view.value_of(mapping, field, erp_id)
    if found is None:
        return Missing(ReferenceNotCoupled, f"{mapping}.{field}@{erp_id}")
    return Known(found, (relied_on(f"{mapping}.{field}:{found}"),))


def _coupled_crm(
    line: FieldMapping, mapping: str, erp_id: str | None, name: str, view: ReferenceView, soft: tuple[str, ...] = ()
) -> Carried:
    """The CRM record coupled to an ERP record; `name`: what is missing where there is no such record."""
    crm_id = view.coupled_to(mapping, System.ERP, erp_id) if erp_id else None
    if crm_id is None:
        missing = f"erp:{view.entity(mapping, System.ERP)}:{erp_id}" if erp_id else name
        return Missing(ReferenceNotCoupled, missing, soft)
    return Known(f"{view.entity(mapping, System.CRM)}:{crm_id}" if line.names_entity else crm_id, soft)


def _bare(line: FieldMapping, value: str) -> str:
    return value.rpartition(":")[2] if line.names_entity else value


# --- comparing ----------------------------------------------------------------------------------------------------


def typed(value: Value, kind: str) -> Value:
    """`value` as its type holds it. Raises ValueError when it cannot be one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if kind == "decimal":
        try:
            number = Decimal(str(value))
        except InvalidOperation as fault:
            raise ValueError("not a number") from fault
        if not _is_amount(number):
            raise ValueError("not an amount")
        return number
    if kind == "integer":
        return int(str(value))
    if kind == "boolean":
        if isinstance(value, bool):
            return value
        raise ValueError("neither true nor false")
    return value if isinstance(value, str) else str(value) if kind in ("text", "code") else value


def equal(line: FieldMapping | None, left: Value, right: Value) -> bool:
    """Whether two values of the same side count as equal (R199-R202). `line` None: compared as they stand."""
    if line is not None and line.type == "decimal":
        return _amount(left) == _amount(right)
    if line is not None:
        lengths = [length for length in (line.erp_length, line.crm_length) if length is not None]
        left, right = _cut(left, lengths), _cut(right, lengths)
    left, right = _plain(left), _plain(right)
    folded = line is not None and (line.type in ("code", "id") or line.owner is not None)
    if folded and isinstance(left, str) and isinstance(right, str):
        return left.upper() == right.upper()
    return left == right


def _cut(value: Value, lengths: list[int]) -> Value:
    return value[: min(lengths)] if lengths and isinstance(value, str) else value


def _amount(value: Value) -> Decimal | None:
    """Zero and blank are one for amounts: the ERP has no blank number."""
    try:
        number = Decimal(str(value)) if value is not None and not isinstance(value, bool) else Decimal(0)
    except InvalidOperation:
        return None
    if not _is_amount(number):
        return None
    return number.normalize() if number else Decimal(0)


def _is_amount(number: Decimal) -> bool:
    """Whether it is a number that a system could hold: both keep fewer than 30 digits on either side of the point."""
    return number.is_finite() and abs(number.adjusted()) < 30


def _plain(value: Value) -> Value:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, Decimal):
        if not _is_amount(value):
            return str(value)
        return int(value) if value == value.to_integral_value() else value
    return value


def passes(state: Values, conditions: Iterable[Condition], view: ReferenceView) -> bool:
    """Whether a record is inside a filter."""
    return not failing(state, conditions, company_crm_id=view.company_crm_id)


def failing(state: Values, conditions: Iterable[Condition], *, company_crm_id: str | None) -> tuple[Condition, ...]:
    """The conditions that do not hold. One on a field that was not captured does not."""
    return tuple(condition for condition in conditions if not _holds(condition, state, company_crm_id))


def _holds(condition: Condition, state: Values, company_crm_id: str | None) -> bool:
    if condition.field not in state:
        return False
    value = _plain(state[condition.field])
    if condition.company:
        return value is None or value == company_crm_id
    if condition.blank is False:
        return value is not None
    if condition.entity is not None:
        return isinstance(value, str) and value.startswith(f"{condition.entity}:")
    return value == condition.equals


def map_fields(
    state: Values, mapping: EntityMapping, direction: Direction, view: ReferenceView, *, creating: bool = True
) -> Mapping[str, Carried]:
    """Target field -> what it should hold, for every line that goes this way and whose source field is known."""
    source, target = source_of(direction), target_of(direction)
    return {
        line.name_in(target): carry(line, state.get(line.name_in(source)), direction, view, creating=creating)
        for line in mapping.lines(direction)
        if line.is_made or line.name_in(source) in state
    }
