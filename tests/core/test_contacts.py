"""Contacts and currencies as their mapping files say: whose company is whose account, which rate is whose."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from processors.decide import Issue, Skip, Wait
from processors.lines import lines_of
from processors.planning import Fate, make_plan
from processors.release import Standing, Waiting, is_there
from processors.transfer import Bad, Carried, Known, Missing, carry, passes
from processors.turn import Turn
from processors.view import BASE_RATE, ReferenceView, is_relied_on, relied_on
from schemas.coupling import Pair, PairState, Row, Side
from schemas.errors import ReferenceNotCoupled, RequiredFieldBlank, ValueNotMappable
from schemas.records import CommandKind, Observed, OrderKind, System, Value
from tests.builders import (
    COMPANY,
    COMPANY_ID,
    EURO,
    MAPPINGS,
    NOON,
    POUND,
    POUND_CRM,
    PRINTS,
    TEAM,
    a_change,
    a_coupling,
    a_customer,
    a_pound,
    a_row,
    a_side,
    a_view,
    a_world,
    an_account,
    an_agreed_pair,
    an_order,
    an_outcome,
    decided,
    line_of,
    moved,
    reference_rows,
    work_of,
)
from tests.core.played import Played

CONTACT, CURRENCY = MAPPINGS["contact"], MAPPINGS["currency"]
COMPANY_LINE = line_of(CONTACT, "parentcustomerid")
NAME = line_of(CONTACT, "fullname")
RATE = line_of(CURRENCY, "exchangerate")
BEARS = "customer-account.companyContactNumber:CT1"  # whoever bears the company's number


def a_customer_of(number: str | None = "CT1", *, record_id: str = "C") -> Side:
    return a_side(record_id, state={"number": record_id, "companyContactNumber": number})


def coupled(number: str | None = "CT1", *, erp: str = "C", crm: str = "A") -> Row:
    return a_coupling("customer-account", a_customer_of(number, record_id=erp), a_side(crm, state={}))


def alone(number: str | None = "CT1", *, erp: str = "C") -> Row:
    return a_row(Pair(erp=a_customer_of(number, record_id=erp)), row_id=erp)


def a_person(**changed: Value) -> dict[str, Value]:
    names = CONTACT.captured_fields(System.ERP)
    said = {"number": "P1", "type": "Person", "displayName": "Jane Roe", "companyNumber": "CT1"}
    return {**dict.fromkeys(names), **said, **changed}


def a_contact(**changed: Value) -> dict[str, Value]:
    names = CONTACT.captured_fields(System.CRM)
    said = {"fullname": "Jane\t\tRoe", "parentcustomerid": "account:A", "statecode": 0, "bcbi_companyid": COMPANY}
    return {**dict.fromkeys(names), **said, **changed}


def to_crm(line: Any, value: Value, *rows: Row, held: Value = None) -> Carried:
    return carry(line, value, "to_crm", a_view(*rows), creating=False, held=held)


def to_erp(line: Any, value: Value, *rows: Row) -> Carried:
    return carry(line, value, "to_erp", a_view(*rows), creating=False)


class TestCompany:
    def test_is_the_account_of_the_customer_that_bears_its_number(self):
        """R315, and back by R317. What was found is relied on: the number may move to another customer."""
        assert Known("account:A", (relied_on(BEARS),)) == to_crm(COMPANY_LINE, "ct1", coupled())
        assert Known("CT1", (relied_on(BEARS),)) == to_erp(COMPANY_LINE, "account:A", coupled())

    def test_of_no_customer_waits_for_one(self):
        """R315."""
        assert Missing(ReferenceNotCoupled, BEARS, (relied_on(BEARS),)) == to_crm(COMPANY_LINE, "CT1")

    def test_of_a_customer_that_is_not_coupled_waits_for_its_coupling(self):
        """R315 would write the contact without a company; here it waits."""
        assert Missing(ReferenceNotCoupled, "erp:customer:C", (relied_on(BEARS),)) == to_crm(
            COMPANY_LINE, "CT1", alone()
        )

    def test_of_an_account_that_is_not_coupled_waits(self):
        """REC-011, R317."""
        assert Missing(ReferenceNotCoupled, "crm:account:A") == to_erp(COMPANY_LINE, "account:A")

    def test_of_an_account_whose_customer_shows_no_company_yet_waits_for_that(self):
        """A customer that we made shows its contact when it is captured."""
        found = to_erp(COMPANY_LINE, "account:A", coupled(None))

        assert Missing(ReferenceNotCoupled, "customer-account.companyContactNumber@C") == found

    def test_is_blank_where_there_is_none(self):
        assert Known(None) == to_crm(COMPANY_LINE, None)


class TestView:
    def news(self, *rows: Row) -> set[str]:
        view = a_view(*rows[:-1])
        return set(view.apply(rows[-1]))

    def test_tells_whose_number_is_new(self):
        assert {BEARS, "customer-account.companyContactNumber@C"} <= self.news(alone())
        assert {BEARS, "customer-account.companyContactNumber@C"} <= self.news(alone(None), alone())

    def test_tells_of_a_number_that_moves_for_both_values(self):
        found = self.news(alone("CT1"), alone("CT2"))

        assert {BEARS, "customer-account.companyContactNumber:CT2"} <= found

    def test_tells_of_another_coupling_of_its_bearer(self):
        assert BEARS in self.news(alone(), coupled())
        assert BEARS in self.news(coupled(), coupled(crm="B"))

    def test_tells_nothing_of_a_row_that_stays(self):
        assert set() == self.news(coupled(), coupled())

    def test_forgets_a_number_with_its_row(self):
        view = a_view(coupled())
        told = view.apply(Row(mapping="customer-account", id="C"))

        assert BEARS in told
        assert view.erp_id_by("customer-account", "companyContactNumber", "CT1") is None

    def test_of_a_number_that_moved_knows_the_new_bearer_in_either_order(self):
        """Rows are read partition by partition: the new one may come before the old one lets go."""
        for rows in ([coupled(), coupled(erp="D", crm="B"), coupled("CT9")], [coupled("CT9"), coupled(erp="D")]):
            assert "D" == a_view(*rows).erp_id_by("customer-account", "companyContactNumber", "CT1")

    def test_says_what_waiting_rows_ask_for(self):
        view, mappings = a_view(coupled()), dict(MAPPINGS)

        assert is_there(BEARS, view, mappings)
        assert is_there("customer-account.companyContactNumber@C", view, mappings)
        assert not is_there("customer-account.companyContactNumber:CT2", view, mappings)
        assert not is_there("customer-account.companyContactNumber@D", view, mappings)
        assert not is_there(relied_on(BEARS), view, mappings)
        assert is_there(BASE_RATE, a_view(own_row()), mappings)
        assert not is_there(BASE_RATE, view, mappings)


class TestReliedOn:
    def test_is_remembered_by_records_that_agreed_from_the_start(self):
        """Nothing was written, and still the company's customer may become another one."""
        pair = Pair(state=PairState.COUPLED, erp=a_side("P", state=a_person()), crm=a_side("K", state=a_contact()))
        found = decided(pair, CONTACT, view=a_view(coupled()))

        assert ["unchanged", "unchanged"] == [getattr(item, "reason", "") for item in found.decisions]
        assert (relied_on(BEARS),) == found.pair.soft_missing

    def test_makes_a_record_decided_anew_though_nothing_in_it_changed(self):
        pair = an_agreed_pair(a_side("P", state=a_person()), a_side("K", state=a_contact()), CONTACT)
        pair = replace(pair, soft_missing=(relied_on(BEARS),))
        view = a_view(coupled("CT9"), coupled(erp="D", crm="B"))
        found = decided(pair, CONTACT, view=view, retry=True)

        expected = Issue(direction="to_crm", kind=CommandKind.UPDATE, values={"parentcustomerid": "account:B"})
        assert expected in found.decisions
        assert (relied_on(BEARS),) == found.pair.soft_missing

    def test_is_no_waiting(self):
        waiting = Waiting(command_timeout_s=60)
        waiting.put(b"a", Standing(names=frozenset({relied_on(BEARS)})), now=NOON)
        waiting.put(b"b", Standing(names=frozenset({relied_on(BEARS), BEARS})), now=NOON)

        assert is_relied_on(relied_on(BEARS))
        assert 1 == waiting.figures(NOON).waiting


class TestContact:
    def played(self, *rows: Row) -> Played:
        return Played(CONTACT, world=a_world(CONTACT, view=a_view(*rows)))

    def test_of_an_uncoupled_company_waits_with_a_letter_and_goes_on_when_that_is_coupled(self):
        """R315 by our rule."""
        played = self.played(alone())
        played.change(a_change("erp:contact:P", order=10, state=a_person(email="j@x.example")))
        played.found()
        (letter,) = played.open_letters()

        assert ("reference-not-coupled erp:customer:C", ("parentcustomerid",)) == (letter.cause, letter.fields)
        assert [] == played.commands
        news = played.world.view.apply(coupled())
        assert "erp:customer:C" in news
        played.order(OrderKind.RETRY, home="P", by="release")
        played.found()
        assert CommandKind.CREATE is played.command.kind
        assert ("account:A", "Jane\t\tRoe", f"team:{TEAM}", COMPANY) == tuple(
            played.command.values[name] for name in ("parentcustomerid", "fullname", "ownerid", "bcbi_companyid")
        )
        played.written(a_contact(emailaddress1="j@x.example"))
        assert [] == played.open_letters()

    def test_of_the_crm_becomes_a_person_of_its_company(self):
        """REC-012, R314, R317."""
        played = self.played(coupled())
        played.change(a_change("crm:contact:K", order=10, state=a_contact(fullname="Jane\tA.\tRoe")))
        played.found()

        values = {"type": "Person", "displayName": "Jane A. Roe", "companyNumber": "CT1"}
        assert (CommandKind.CREATE, values) == (played.command.kind, dict(played.command.values))

    def test_whose_surname_changes_on_one_side_has_it_on_the_other(self):
        """REC-010: in the ERP it is the end of the one name."""
        pair = an_agreed_pair(a_side("P", state=a_person()), a_side("K", state=a_contact()), CONTACT)
        in_erp = replace(pair, erp=moved(pair.erp, displayName="Jane Doe"))
        in_crm = replace(pair, crm=moved(pair.crm, fullname="Jane\t\tDoe"))

        update = CommandKind.UPDATE
        assert (
            Issue(direction="to_crm", kind=update, values={"fullname": "Jane\t\tDoe"})
            in decided(in_erp, CONTACT, view=a_view(coupled())).decisions
        )
        assert (
            Issue(direction="to_erp", kind=update, values={"displayName": "Jane Doe"})
            in decided(in_crm, CONTACT, view=a_view(coupled())).decisions
        )

    @pytest.mark.parametrize(
        ("system", "changed"),
        [
            (System.ERP, {"type": "Company"}),
            (System.ERP, {"companyNumber": None}),
            (System.CRM, {"parentcustomerid": "contact:K2"}),
            (System.CRM, {"parentcustomerid": None}),
            (System.CRM, {"statecode": 1}),
        ],
    )
    def test_outside_the_filter_does_not_flow(self, system: System, changed: dict[str, Value]):
        """FIL-005, FIL-008, R314, R318."""
        state = a_person() if system is System.ERP else a_contact()

        assert passes(state, CONTACT.conditions(system), a_view())
        assert not passes({**state, **changed}, CONTACT.conditions(system), a_view())

    def test_is_looked_for_by_what_can_be_asked_for(self):
        """One that has lost its company is found and given it back (R316)."""
        event = a_change("erp:contact:P", state=a_person())
        turn = Turn(work_of(event, mapping="contact"), a_row(mapping="contact"), CONTACT, a_world(CONTACT), NOON)

        assert {System.ERP: {"type": "Person"}, System.CRM: {"statecode": 0}} == lines_of(CONTACT).within
        assert {"bcbi_companyid": COMPANY} == turn.within_company(System.CRM)

    def test_is_matched_however_the_crm_divides_the_name(self):
        """Else a first load makes the person a second time, on both sides."""
        email = "femke@contoso.com"
        person = a_side("P", state=a_person(displayName="Femke Van der Meer", email=email))
        contact = a_side("Q", state=a_contact(fullname="Femke\t\tVan der Meer", emailaddress1=email))
        rows = (coupled(), *(a_row(pair, mapping="contact") for pair in (Pair(erp=person), Pair(crm=contact))))

        plan = make_plan((*reference_rows(), *rows), MAPPINGS, prints=PRINTS, company_id=COMPANY_ID)

        (one,) = plan.of("contact")
        assert (Fate.MATCH, "P", "Q") == (one.fate, one.erp_id, one.crm_id)

    def test_name_that_the_crm_divides_in_another_way_stands(self):
        """A person put the parts where they belong; only another name is divided anew."""
        assert Known("Ludwig van\t\tBeethoven") == to_crm(NAME, "Ludwig van Beethoven", held="Ludwig van\t\tBeethoven")
        assert Known("Ludwig\t\tvan Goethe") == to_crm(NAME, "Ludwig van Goethe", held="Ludwig van\t\tBeethoven")
        assert Known("\t\tCher") == to_crm(NAME, "Cher")


def own_row(rate: Value = 1) -> Row:
    return a_row(Pair(crm=a_side(EURO, state={"isocurrencycode": "EUR", "exchangerate": rate})), mapping="currency")


def a_currency(code: str, rate: Value, *, crm_rate: Value = None) -> Row:
    erp = a_side(code.lower(), state=a_pound(code=code, exchangeRate=rate))
    crm = a_side(f"crm-{code}", state={"isocurrencycode": code, "exchangerate": crm_rate})
    return a_coupling("currency", erp, crm)


class TestFirstContact:
    """R311: the first contact that is made for an account is its primary contact, unless it has one."""

    def played(self, **account: Value) -> Played:
        """A customer and its account, in agreement; contacts are played on."""
        account = {"primarycontactid": None, **account}
        customer = a_side("C", state=a_customer(number="C", companyContactNumber="CT1"))
        pair = an_agreed_pair(customer, a_side("A", state=an_account(**account)), in_step=True)
        row = a_row(pair, row_id="C")
        played = Played(CONTACT, world=a_world(CONTACT, view=a_view(row)))
        played.rows["C"] = row
        return played

    def made(self, played: Played, person: str = "P") -> Played:
        """A person of the ERP becomes a contact of the same id."""
        state = a_person(number=person, displayName=f"Jane {person}", email=f"{person}@x.example")
        played.change(a_change(f"erp:contact:{person}", order=10, state=state)).found()
        return played.written(a_contact(fullname=f"Jane\t\t{person}", emailaddress1=f"{person}@x.example"))

    def test_is_put_where_there_was_none(self):
        played = self.made(self.played())

        command = played.command
        assert ("crm:account:A", CommandKind.UPDATE) == (str(command.target), command.kind)
        assert {"primarycontactid": "P"} == dict(command.values)
        assert None is command.seen["primarycontactid"]

    def test_is_put_once(self):
        played = self.made(self.played())
        outcome = an_outcome(
            played.command,
            observed=Observed(id="A", version="2", order=60, modified_at=NOON, state=an_account(primarycontactid="P")),
        )
        played.commands.clear()
        played.post(work_of(outcome))
        played.run()
        self.made(played, "Q")

        assert [] == played.commands
        assert "" == played.pair("C").first

    def test_is_the_first_of_two(self):
        """The second comes while the first is on its way."""
        played = self.made(self.played())
        (first,) = played.commands
        played.commands.clear()
        self.made(played, "Q")

        assert [] == played.commands
        assert {"primarycontactid": "P"} == dict(first.values)

    def test_leaves_one_that_somebody_chose(self):
        assert [] == self.made(self.played(primarycontactid="K")).commands

    def test_waits_for_an_account_whose_primary_contact_was_not_captured_yet(self):
        played = self.played()
        crm = played.pair("C").crm
        unknown = {name: value for name, value in crm.state.items() if name != "primarycontactid"}
        played.rows["C"] = replace(played.rows["C"], pair=replace(played.pair("C"), crm=replace(crm, state=unknown)))
        self.made(played)

        assert [] == played.commands
        seen = a_change("crm:account:A", order=70, state=an_account(primarycontactid=None))
        played.post(work_of(seen, home="C"))
        played.run()
        assert {"primarycontactid": "P"} == dict(played.command.values)

    def test_goes_with_other_changes_in_one_request(self):
        played = self.played()
        played.world.view.apply(a_coupling("contact", a_side("P", state=a_person()), a_side("P", state=a_contact())))
        state = a_customer(number="C", companyContactNumber="CT1", city="Rome")
        played.rows["C"] = replace(played.rows["C"], pair=replace(played.pair("C"), first="P"))
        played.post(work_of(a_change("erp:customer:C", order=70, state=state)))
        played.run()

        assert {"primarycontactid": "P", "address1_city": "Rome"} == dict(played.command.values)

    def test_that_is_gone_again_is_no_primary_contact(self):
        """And whoever comes next may be."""
        played = self.played()
        played.rows["C"] = replace(played.rows["C"], pair=replace(played.pair("C"), first="gone"))
        played.post(
            work_of(
                a_change(
                    "erp:customer:C", order=70, state=a_customer(number="C", companyContactNumber="CT1", city="Rome")
                )
            )
        )
        played.run()

        assert {"address1_city": "Rome"} == dict(played.command.values)
        assert "crm:contact:gone" in played.pair("C").soft_missing
        played.commands.clear()
        self.made(played)
        assert "P" == played.pair("C").first

    def test_of_a_pair_that_is_uncoupled_is_forgotten(self):
        played = self.played()
        played.rows["C"] = replace(played.rows["C"], pair=replace(played.pair("C"), first="P"))
        played.post(work_of(an_order(OrderKind.UNCOUPLE, erp_id="C", crm_id="A"), home="C"))
        played.run()
        unstamped = an_account(bcbi_companyid=None, primarycontactid=None)
        observed = Observed(id="A", version="2", order=60, modified_at=NOON, state=unstamped)
        played.post(work_of(an_outcome(played.command, observed=observed)))
        played.run()

        assert "" == played.pair("C").first

    def test_is_none_of_the_changes_that_a_brake_counts(self):
        """A first load makes many contacts, and nobody wants it stopped for that."""
        played = self.made(self.played())

        assert {} == played.pair("C").updated

    def test_comes_once_however_often_the_message_does(self):
        played = self.made(self.played())
        (first,) = played.commands
        played.again("P", last=2)

        assert [first.command_id] == list({command.command_id for command in played.commands})


class TestRate:
    def test_is_the_erp_s_where_the_own_currency_is_the_base(self):
        """R322."""
        assert Known(Decimal("0.8"), (relied_on(BASE_RATE),)) == to_crm(RATE, Decimal("0.8"), own_row())

    def test_is_divided_by_the_base_currency_s_where_that_is_another(self):
        """R322: the cross rate, with ten decimals; the base itself gives 1."""
        rows = (own_row(Decimal("0.9")), a_currency("USD", Decimal("1.1"), crm_rate=1))

        assert Known(Decimal("0.7272727273"), (relied_on(BASE_RATE),)) == to_crm(RATE, Decimal("0.8"), *rows)
        assert Known(Decimal(1), (relied_on(BASE_RATE),)) == to_crm(RATE, Decimal("1.1"), *rows)

    @pytest.mark.parametrize("rows", [(), (a_currency("USD", None, crm_rate=1),)])
    def test_waits_for_a_base_currency(self, rows: tuple[Row, ...]):
        """R322: one that is not in the ERP, or has no rate there, is none."""
        assert Missing(ReferenceNotCoupled, BASE_RATE) == to_crm(RATE, 2, *rows)

    def test_of_two_that_may_be_the_base_neither_is(self):
        rows = (a_currency("USD", 2, crm_rate=1), a_currency("CHF", 3, crm_rate=1))

        assert Missing(ReferenceNotCoupled, BASE_RATE) == to_crm(RATE, 2, *rows)

    @pytest.mark.parametrize("rate", [None, 0, Decimal(0)])
    def test_that_is_none_stops_the_currency(self, rate: Value):
        """R322: a currency without a rate."""
        found = decided(Pair(erp=a_side("usd", state=a_pound(exchangeRate=rate))), NO_LOOK, view=a_view(own_row()))

        assert [RequiredFieldBlank] == [getattr(item, "error", None) for item in found.decisions]

    def test_that_is_no_number_stops_the_currency(self):
        assert Bad(ValueNotMappable) == to_crm(RATE, "much", own_row())

    def test_of_the_base_currency_is_news_when_it_changes(self):
        view = a_view(own_row(2), a_currency("USD", 2, crm_rate=1))

        assert BASE_RATE in view.apply(a_currency("USD", 3, crm_rate=1))
        assert BASE_RATE not in view.apply(a_currency("USD", 3, crm_rate=1))
        assert BASE_RATE in view.apply(Row(mapping="currency", id="usd"))
        assert view.base_rate is None


NO_LOOK = CURRENCY.model_copy(update={"match": ()})


class TestCurrency:
    def test_that_is_new_is_made_with_code_symbol_name_rate_and_precision(self):
        """R320, R321."""
        found = decided(Pair(erp=a_side(POUND, state=a_pound())), NO_LOOK, view=a_view(own_row()))

        values = {
            "currencyprecision": 2,
            "isocurrencycode": "GBP",
            "currencysymbol": "£",
            "currencyname": "Pound",
            "exchangerate": Decimal("0.8"),
        }
        assert (Issue(direction="to_crm", kind=CommandKind.CREATE, values=values),) == found.decisions
        assert (relied_on(BASE_RATE),) == found.pair.soft_missing

    def a_pair(self, **changed: Value) -> Pair:
        held = {
            "isocurrencycode": "GBP",
            "currencysymbol": "£",
            "currencyname": "Pound",
            "exchangerate": Decimal("0.8"),
        }
        pair = an_agreed_pair(a_side(POUND, state=a_pound()), a_side(POUND_CRM, state=held), CURRENCY)
        return replace(pair, erp=moved(pair.erp, **changed))

    def test_keeps_the_code_that_it_was_made_with(self):
        """R323: the ISO code is insert-only."""
        found = decided(self.a_pair(code="GBX"), CURRENCY, view=a_view(own_row()))

        assert (Skip(direction="to_crm", reason="unchanged"),) == found.decisions

    def test_follows_its_rate(self):
        """R324: the rate table is listened to."""
        found = decided(self.a_pair(exchangeRate=Decimal("0.9")), CURRENCY, view=a_view(own_row()))

        values = {"exchangerate": Decimal("0.9")}
        assert (Issue(direction="to_crm", kind=CommandKind.UPDATE, values=values),) == found.decisions

    def test_follows_the_rate_of_the_base_currency(self):
        """R322: nothing of its own changed."""
        pair = replace(self.a_pair(), soft_missing=(relied_on(BASE_RATE),))
        view = a_view(own_row(2), a_currency("USD", 2, crm_rate=1))
        (found,) = decided(pair, CURRENCY, view=view, retry=True).decisions

        assert isinstance(found, Issue)
        assert {"exchangerate": Decimal("0.4")} == found.values

    def test_waits_while_nobody_knows_the_base(self):
        (found,) = decided(self.a_pair(exchangeRate=Decimal("0.9")), CURRENCY, view=a_view()).decisions

        assert isinstance(found, Wait)
        assert (BASE_RATE,) == found.missing

    def test_without_a_mapping_file_is_known_to_no_view(self):
        view = ReferenceView([CONTACT, MAPPINGS["customer-account"]], company_id="")

        assert (None, ()) == (view.currency_id("EUR"), view.apply(own_row()))


class TestCompanyContact:
    """The ERP's own contact of a customer, which it rewrites whenever the customer is written (R308)."""

    @staticmethod
    def change(number: str, company: str) -> list[tuple[str, str, tuple[str, ...]]]:
        world = a_world(CONTACT, view=a_view(coupled()))
        played = Played(CONTACT, world=world)
        state = {"number": number, "companyNumber": company, "type": "Company", "displayName": "Fabrikam"}
        played.change(a_change("erp:contact:K", state=state))
        return [(line.event, line.reason, line.fields) for line in played.lines]

    def test_is_named_in_the_journal_with_its_customer(self):
        """Whoever reads it sees that nobody edited the contact."""
        assert [("skipped", "outside-filter", ("changes-with:erp:customer:C",))] == self.change("CT1", "CT1")

    @pytest.mark.parametrize(("number", "company"), [("CT2", "CT1"), ("CT9", "CT9")])
    def test_is_no_other_one(self, number: str, company: str):
        """A contact below the company; a company that is nobody's customer."""
        assert [("skipped", "outside-filter", ())] == self.change(number, company)
