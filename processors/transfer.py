"""What becomes of a value on its way across, and when two values count as equal.

Pure. `carry` turns the source value of one mapping line into what the target should hold, and `equal` says whether the
target holds it already, compared as the built-in integration compares (R197-R207: codes without regard to case, texts
cut to the shorter length, blank is blank on both sides).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from processors.mapping import Condition, Direction, EntityMapping, FieldMapping, source_of, target_of
from processors.transforms import transformed
from processors.view import ReferenceView
from schemas.errors import OptionNotCoupled, OwnerNotCoupled, RecordError, ReferenceNotCoupled, ValueNotMappable
from schemas.records import System, Value, Values


@dataclass(frozen=True, slots=True)
class Known:
    """The target should hold this."""

    value: Value
    soft: tuple[str, ...] = ()  # went on without these references; decided again when they appear


@dataclass(frozen=True, slots=True)
class Leave:
    """The target's value stays as it is."""

    reason: str
    soft: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """The value refers to something that is not coupled."""

    error: type[RecordError]
    missing: str


@dataclass(frozen=True, slots=True)
class Bad:
    """The value cannot be carried."""

    error: type[RecordError]


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
    if line.owner is not None:
        return _carry_owner(line.owner, value, view, creating=creating)
    if line.currency:
        return _carry_currency(value, held, direction, view)
    if line.options is not None:
        return _carry_option(line, value, direction, view)
    if line.reference is not None:
        return _carry_reference(line, value, direction, view)
    return _carry_plain(line, value, direction)


def _carry_plain(line: FieldMapping, value: Value, direction: Direction) -> Carried:
    try:
        value = typed(value, line.type)
    except ValueError:
        return Bad(ValueNotMappable)
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


def _carry_currency(value: Value, held: Value, direction: Direction, view: ReferenceView) -> Carried:
    """R226, R227 for the company's own currency; any other is left as it is, on either side."""
    local = view.local_currency
    if not local:
        return Leave("local-currency-unknown", ("local-currency",))
    row = view.currency_id(local)
    if row is None:
        return Leave("local-currency-not-in-crm", (f"currency:{local}",))
    code = value if direction == "to_crm" else held
    if str(code or local).strip().upper() != local:
        return Leave("foreign-currency")
    if direction == "to_crm":
        return Known(row)
    # In the ERP a blank is the own currency, and the API may show it as the code: either is left as it stands.
    return Known(held) if value in (None, row) else Leave("foreign-currency")


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
    if direction == "to_crm":
        erp_id = str(value) if line.reference_by == "id" else view.erp_id_by_key(mapping, str(value))
        crm_id = view.coupled_to(mapping, System.ERP, erp_id) if erp_id else None
        if crm_id is not None:
            return Known(crm_id)
        missing = f"erp:{view.entity(mapping, System.ERP)}:{erp_id}" if erp_id else f"{mapping}:{value}"
    else:
        erp_id = view.coupled_to(mapping, System.CRM, str(value))
        found = erp_id if line.reference_by == "id" or not erp_id else view.key_by_id(mapping, System.ERP, erp_id)
        if found is not None:
            return Known(found)
        missing = f"crm:{view.entity(mapping, System.CRM)}:{value}"
    return Known(None, (missing,)) if line.clear_when_uncoupled else Missing(ReferenceNotCoupled, missing)


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
