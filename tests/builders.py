"""Full, valid records for tests: a test overrides only what it is about.

The pair that everything starts from: customer `C` and account `A`, coupled, in agreement, under the shipped mapping
`customer-account`, in a company whose currency is the euro, with Jane (JR) coupled to a user and Kim (KL) not.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from processors.coupling import Fingerprints, agree
from processors.decide import Context, Decided, decide
from processors.mapping import EntityMapping, FieldMapping, MatchField
from processors.mapping_files import load_mappings
from processors.turn import World
from processors.view import ReferenceView
from schemas.coupling import Home, InFlight, Pair, PairState, Row, Side
from schemas.records import (
    ChangeEvent,
    Command,
    CommandKind,
    DeadLetter,
    JournalLine,
    Observed,
    Operation,
    Order,
    OrderKind,
    Outcome,
    OutcomeStatus,
    RecordRef,
    System,
    Value,
    Watermark,
    Work,
    derived_id,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)
MAPPINGS = load_mappings(None)
CUSTOMER = MAPPINGS["customer-account"]
SALESPEOPLE = MAPPINGS["salesperson-systemuser"]
MICROSOFT = load_mappings(None, compat="microsoft")["customer-account"]
TEAM_OWNED = load_mappings(None, ownership="team")["customer-account"]
PRINTS = Fingerprints.of_key("test")

COMPANY_ID = "11111111-aaaa-4aaa-8aaa-111111111111"  # of the ERP
COMPANY = "company-row"
OTHER_COMPANY = "row-of-another-company"
TEAM = "default-team"
EURO, DOLLAR = "currency-eur", "currency-usd"  # of the CRM: the own one, and one that is not coupled
POUND, POUND_CRM = "pound", "currency-gbp"
JANE, KIM = "salesperson-jane", "salesperson-kim"  # codes JR and KL
JANES_USER, KIMS_USER = "user-jane", "user-kim"
NET_30, NET_30_CRM = "term-net-30", 1
FOB, FOB_CRM = "method-fob", 1

# A mapping of three lines and one match, without references: for tests about pairs and homes, not about fields.
SMALL = EntityMapping(
    name="customer-account",
    erp="customer",
    crm="account",
    match=((MatchField(erp="displayName", crm="name"),),),
    fields=(
        FieldMapping(erp="displayName", crm="name", required=True, erp_length=20, crm_length=30),
        FieldMapping(erp="phoneNumber", crm="telephone1"),
        FieldMapping(erp="creditLimit", crm="creditlimit", type="decimal", direction="to_crm"),
    ),
)


def small(**changed: Any) -> EntityMapping:
    return SMALL.model_copy(update=changed)


def customer(**changed: Any) -> EntityMapping:
    """The shipped customer mapping with some of its keys changed."""
    return CUSTOMER.model_copy(update=changed)


def with_line(mapping: EntityMapping, crm: str, **changed: Any) -> EntityMapping:
    """The mapping with one line changed."""
    lines = tuple(line.model_copy(update=changed) if line.crm == crm else line for line in mapping.fields)
    return mapping.model_copy(update={"fields": lines})


def line_of(mapping: EntityMapping, crm: str) -> FieldMapping:
    (line,) = (line for line in mapping.fields if line.crm == crm)
    return line


# --- states -------------------------------------------------------------------------------------------------------


def a_customer(**changed: Value) -> dict[str, Value]:
    return {
        "number": "C-10",
        "displayName": "Fabrikam",
        "addressLine1": "Unter den Linden 1",
        "addressLine2": None,
        "postalCode": "10117",
        "city": "Berlin",
        "country": "DE",
        "state": None,
        "currencyCode": "EUR",
        "email": "info@fabrikam.example",
        "website": None,
        "phoneNumber": "+49 30 555 0100",
        "salespersonCode": "JR",
        "shipmentMethodId": FOB,
        "paymentTermsId": NET_30,
        "creditLimit": 25000,
        "blocked": None,
        **changed,
    }


def an_account(**changed: Value) -> dict[str, Value]:
    return {
        "accountnumber": None,
        "name": "Fabrikam",
        "address1_line1": "Unter den Linden 1",
        "address1_line2": None,
        "address1_postalcode": "10117",
        "address1_city": "Berlin",
        "address1_country": "DE",
        "address1_stateorprovince": None,
        "transactioncurrencyid": EURO,
        "emailaddress1": "info@fabrikam.example",
        "websiteurl": None,
        "telephone1": "+49 30 555 0100",
        "ownerid": f"systemuser:{JANES_USER}",
        "address1_freighttermscode": FOB_CRM,
        "paymenttermscode": NET_30_CRM,
        "creditlimit": 25000,
        "bcbi_companyid": COMPANY,
        "statecode": 0,
        "customertypecode": 3,
        **changed,
    }


def a_small_customer(**changed: Value) -> dict[str, Value]:
    return {"displayName": "Fabrikam", "phoneNumber": "555", "creditLimit": 100, **changed}


def a_small_account(**changed: Value) -> dict[str, Value]:
    return {"name": "Fabrikam", "telephone1": "555", "creditlimit": 100, **changed}


# --- sides, pairs, rows -------------------------------------------------------------------------------------------


def a_side(record_id: str = "C", *, order: int = 10, **changed: Any) -> Side:
    side = Side(
        id=record_id,
        version=f'W/"{order}"',
        order=order,
        modified_at=NOON + timedelta(seconds=order),
        state=a_customer(),
        captured_at=NOON + timedelta(seconds=order + 1),
    )
    return replace(side, **changed)


def moved(side: Side, *, seconds: float = 60, **changed: Value) -> Side:
    """The side after an edit, as `absorb_event` leaves it: a higher order, a new version, the time of each change."""
    at = NOON + timedelta(seconds=seconds)
    touched = {name: at for name, value in changed.items() if side.base.get(name) != PRINTS.of(value)}
    return replace(
        side,
        order=side.order + 1,
        version=f'W/"{side.order + 1}"',
        modified_at=at,
        state={**side.state, **changed},
        touched={**side.touched, **touched},
    )


def an_agreed_pair(
    erp: Side, crm: Side, mapping: EntityMapping = CUSTOMER, *, company: str = COMPANY, **changed: Any
) -> Pair:
    """Coupled, and what both sides hold is what they agreed on."""
    pair = Pair(state=PairState.COUPLED, erp=erp, crm=crm, key_id=PRINTS.key_id, coupled_at=NOON)
    lines = [line for line in mapping.fields if line.enabled]
    return replace(agree(pair, lines, PRINTS, company=company), **changed)


def a_pair(
    *,
    erp: Mapping[str, Value] | None = None,
    crm: Mapping[str, Value] | None = None,
    erp_at: float = 60,
    crm_at: float = 60,
    agreed_erp: Mapping[str, Value] | None = None,
    agreed_crm: Mapping[str, Value] | None = None,
    mapping: EntityMapping = CUSTOMER,
    **changed: Any,
) -> Pair:
    """Customer and account, coupled. `erp` and `crm`: edits since they agreed, at that many seconds after noon."""
    one = a_side("C", state=a_customer(**(agreed_erp or {})))
    two = a_side("A", state=an_account(**(agreed_crm or {})))
    pair = an_agreed_pair(one, two, mapping)
    assert pair.erp is not None
    assert pair.crm is not None
    return replace(
        pair,
        erp=moved(pair.erp, seconds=erp_at, **erp) if erp is not None else pair.erp,
        crm=moved(pair.crm, seconds=crm_at, **crm) if crm is not None else pair.crm,
        **changed,
    )


def a_first_pair(
    *, erp: Mapping[str, Value] | None = None, crm: Mapping[str, Value] | None = None, **changed: Any
) -> Pair:
    """Coupled a moment ago: the sides never agreed on anything."""
    pair = Pair(
        state=PairState.COUPLED,
        erp=a_side("C", state=a_customer(**(erp or {}))),
        crm=a_side("A", state=an_account(**(crm or {}))),
        key_id=PRINTS.key_id,
        coupled_at=NOON,
    )
    return replace(pair, **changed)


def a_single(system: System = System.ERP, **changed: Value) -> Pair:
    """One record without counterpart."""
    if system is System.ERP:
        return Pair(erp=a_side("C", state=a_customer(**changed)))
    return Pair(crm=a_side("A", state=an_account(**changed)))


def a_row(pair: Pair | None = None, *, mapping: str = "customer-account", row_id: str = "C", **changed: Any) -> Row:
    return replace(Row(mapping=mapping, id=row_id, pair=pair), **changed)


def a_coupling(mapping: str, erp: Side, crm: Side) -> Row:
    return Row(mapping=mapping, id=erp.id, pair=Pair(state=PairState.COUPLED, erp=erp, crm=crm, coupled_at=NOON))


# --- the world ----------------------------------------------------------------------------------------------------


def a_salesperson(record_id: str, code: str) -> Side:
    return a_side(record_id, state={"code": code, "email": f"{code.lower()}@contoso.example", "displayName": code})


def a_user(record_id: str, email: str = "someone@contoso.example") -> Side:
    state = {"internalemailaddress": email, "fullname": email, "mobilephone": None}
    return a_side(record_id, state={**state, "isdisabled": False, "islicensed": True, "isintegrationuser": False})


def a_pound(**changed: Value) -> dict[str, Value]:
    return {"code": "GBP", "symbolOrCode": "£", "displayName": "Pound", "exchangeRate": Decimal("0.8"), **changed}


def reference_rows() -> list[Row]:
    """What the view of the tests knows."""

    def looked_up(mapping: str, record_id: str, *, system: System = System.ERP, **state: Value) -> Row:
        side = a_side(record_id, state=state)
        pair = Pair(erp=side) if system is System.ERP else Pair(crm=side)
        return Row(mapping=mapping, id=record_id, pair=pair)

    company = {"bcbi_externalid": COMPANY_ID, "bcbi_name": "CRONUS", "bcbi_defaultowningteamid": TEAM}
    return [
        a_coupling("salesperson-systemuser", a_salesperson(JANE, "JR"), a_user(JANES_USER, "jr@contoso.example")),
        Row(mapping="salesperson-systemuser", id=KIM, pair=Pair(erp=a_salesperson(KIM, "KL"))),
        looked_up("company", COMPANY, system=System.CRM, **company),
        looked_up("company-information", "info", displayName="CRONUS", currencyCode="EUR"),
        looked_up("currency", EURO, system=System.CRM, isocurrencycode="EUR"),
        looked_up("currency", DOLLAR, system=System.CRM, isocurrencycode="USD"),
        a_coupling("currency", a_side(POUND, state=a_pound()), a_side(POUND_CRM, state={"isocurrencycode": "GBP"})),
        looked_up("payment-term", NET_30, code="NET 30"),
        looked_up("payment-term", "term-odd", code="ODD"),
        looked_up("shipment-method", FOB, code="FOB"),
    ]


def a_view(
    *more: Row, without: tuple[str, ...] = (), mappings: Mapping[str, EntityMapping] = MAPPINGS
) -> ReferenceView:
    """The reference view of the tests; `without`: ids of rows it does not know."""
    view = ReferenceView(mappings.values(), company_id=COMPANY_ID)
    for row in (*reference_rows(), *more):
        if row.id not in without:
            view.apply(row)
    return view


def couple_kim(view: ReferenceView) -> tuple[str, ...]:
    return view.apply(a_coupling("salesperson-systemuser", a_salesperson(KIM, "KL"), a_user(KIMS_USER)))


def a_context(**changed: Any) -> Context:
    return replace(Context(prints=PRINTS, company_id=COMPANY_ID), **changed)


def a_world(mapping: EntityMapping = CUSTOMER, *, view: ReferenceView | None = None, **changed: Any) -> World:
    world = World(
        mappings={**MAPPINGS, mapping.name: mapping},
        view=view or a_view(),
        prints=PRINTS,
        company_id=COMPANY_ID,
    )
    return replace(world, **changed)


def decided(
    pair: Pair, mapping: EntityMapping = CUSTOMER, *, view: ReferenceView | None = None, **context: Any
) -> Decided:
    return decide(pair, mapping, view or a_view(), a_context(**context))


# --- messages -----------------------------------------------------------------------------------------------------


def a_change(
    ref: str = "erp:customer:C", *, order: int = 11, state: Mapping[str, Value] | None = None, **changed: Any
) -> ChangeEvent:
    parsed = RecordRef.parse(ref)
    default = {"erp:customer": a_customer, "crm:account": an_account}.get(f"{parsed.system}:{parsed.entity}", dict)
    event = ChangeEvent(
        event_id=derived_id("event", ref, order),
        ref=parsed,
        operation=Operation.CHANGE,
        version=f'W/"{order}"',
        order=order,
        modified_at=NOON + timedelta(seconds=order),
        captured_at=NOON + timedelta(seconds=order + 1),
        after=default() if state is None else dict(state),
    )
    return replace(event, **changed)


def a_delete(ref: str = "erp:customer:C", *, order: int = 12) -> ChangeEvent:
    return a_change(ref, order=order, operation=Operation.DELETE, version=f"deleted:{order}", after=None)


def a_command(**changed: Any) -> Command:
    command = Command(
        command_id="command-1",
        mapping="customer-account",
        home="C",
        kind=CommandKind.UPDATE,
        target=RecordRef(System.CRM, "account", "A"),
        values={"telephone1": "1"},
        expected_version='W/"10"',
        seen=an_account(),
        issued_at=NOON,
    )
    return replace(command, **changed)


def a_flight(command: Command | None = None, *, direction: str = "to_crm", **changed: Any) -> InFlight:
    flight = InFlight(command=command or a_command(), direction=direction, sent_at=NOON)
    return replace(flight, **changed)


def an_observed(record_id: str = "A", *, order: int = 20, state: Mapping[str, Value] | None = None) -> Observed:
    return Observed(
        id=record_id,
        version=f'W/"{order}"',
        order=order,
        modified_at=NOON + timedelta(seconds=order),
        state=an_account() if state is None else dict(state),
    )


def an_outcome(command: Command, status: OutcomeStatus = OutcomeStatus.WRITTEN, **changed: Any) -> Outcome:
    outcome = Outcome(
        command_id=command.command_id,
        mapping=command.mapping,
        home=command.home,
        status=status,
        target=command.target,
        at=NOON + timedelta(seconds=100),
    )
    return replace(outcome, **changed)


def an_order(kind: OrderKind, order_id: str = "order-1", *, by: str = "operator", **changed: Any) -> Order:
    return replace(Order(order_id=order_id, kind=kind, by=by), **changed)


def work_of(
    what: ChangeEvent | Outcome | Order, *, home: str | None = None, mapping: str = "customer-account", **changed: Any
) -> Work:
    """The message that carries this, to its home."""
    if isinstance(what, ChangeEvent):
        work = Work(message_id=f"{what.event_id}:{mapping}", mapping=mapping, home=home or what.ref.id, change=what)
    elif isinstance(what, Outcome):
        version = what.observed.version if what.observed else ""
        message_id = derived_id("outcome", what.command_id, what.status.value, version)
        work = Work(message_id=message_id, mapping=mapping, home=home or what.home, outcome=what)
    else:
        assert home is not None
        work = Work(message_id=what.order_id, mapping=mapping, home=home, order=what)
    return replace(work, **changed)


def a_letter(**changed: Any) -> DeadLetter:
    letter = DeadLetter(
        letter_id="letter-1",
        code="DRW-3001",
        slug="owner-not-coupled",
        mapping="customer-account",
        home="C",
        ref="erp:customer:C",
        direction="to_crm",
        missing=f"erp:salesperson:{KIM}",
        cause=f"owner-not-coupled erp:salesperson:{KIM}",
        fields=("ownerid",),
        opened_at=NOON,
        changed_at=NOON,
    )
    return replace(letter, **changed)


def a_journal_line(**changed: Any) -> JournalLine:
    line = JournalLine(
        line_id="line-1",
        at=NOON,
        mapping="customer-account",
        home="C",
        event="issued",
        ref="erp:customer:C",
        fields=("telephone1",),
    )
    return replace(line, **changed)


def a_watermark(**changed: Any) -> Watermark:
    mark = Watermark(
        system=System.ERP, entity="customer", position="2026-03-02", field_set="f1", snapshot_done=True, at=NOON
    )
    return replace(mark, **changed)


def a_home(belongs_to: str, **changed: Any) -> Home:
    return replace(Home(belongs_to=belongs_to), **changed)
