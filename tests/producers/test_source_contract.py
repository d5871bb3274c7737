"""What the worker relies on, asked of both sources against the sandbox, over HTTPS and with a real sign-in."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

import pytest

from drawbar.business_central import BusinessCentral
from drawbar.dataverse import Dataverse
from drawbar.odata import ODataHttp
from drawbar.ports import Reply
from producers.sources import BusinessCentralSource, DataverseSource, Next, Source, SourceFault, to_fault
from schemas.errors import PositionExpired, PrivilegeMissing, SettingsError, SourceBroken, Throttled, Unavailable
from schemas.records import System
from tests.producers.sandboxes import CLOCK, ENTITIES, NAMES, SETS, Hands, clients, sandbox
from tests.sandbox.rounds import ROUNDS

NOBODY = "00000000-0000-4000-8000-00000000dead"


@pytest.fixture(scope="module", params=ROUNDS)
def hands(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    """A sandbox for every way in which the services may answer."""
    with sandbox(tmp_path_factory.mktemp("sandbox"), ROUNDS[request.param]) as hands:
        yield hands


@pytest.fixture(scope="module")
def client(hands: Hands) -> Iterator[Callable[[System], ODataHttp]]:
    with clients(hands) as client:
        yield client


@pytest.fixture
def make(hands: Hands, client: Callable[[System], ODataHttp]) -> Callable[..., Source]:
    def source(system: System, *, page_size: int = 5000, entity: str = "", fields: Sequence[str] = ()) -> Source:
        name, http = entity or ENTITIES[system], client(system)
        chosen = fields or (NAMES[system],)
        if system is System.CRM:
            return DataverseSource(Dataverse(), name, chosen, http=http, clock=CLOCK, page_size=page_size)
        adapter = BusinessCentral(company_id=hands.info["erp"]["company_id"])
        return BusinessCentralSource(adapter, name, chosen, http=http, clock=CLOCK, page_size=page_size)

    return source


def end_of(source: Source, position: str = "") -> str:
    """The position after all changes."""
    for page in source.changes(position):
        position = page.position or position
    return position


def listed(source: Source) -> dict[str, str]:
    return {record_id: version for page in source.ids() for record_id, version in page.items()}


@pytest.mark.parametrize("system", list(System))
class TestSource:
    def test_shows_every_record_once_over_all_pages(self, system: System, hands: Hands, make: Callable[..., Source]):
        """Everything changed after no position at all, and only the last page says that it is the last."""
        pages = list(make(system, page_size=37).changes(""))

        rows = [row for page in pages for row in page.rows]
        key = "id" if system is System.ERP else "accountid"
        assert sorted(row[key] for row in hands.truth(system)) == sorted(row.id for row in rows)
        assert len(pages) > 3
        assert [True] == [page.is_last for page in pages if page.is_last] == [pages[-1].is_last]

    def test_shows_what_changed_after_a_position(self, system: System, hands: Hands, make: Callable[..., Source]):
        """A created and a changed record come with their present state; nothing older than the overlap does."""
        source = make(system)
        position = end_of(source)
        made, changed = hands.create(system), next(iter(listed(source)))
        hands.rename(system, changed, "Renamed")

        rows = {row.id: row for page in source.changes(position) for row in page.rows}
        assert {made, changed} <= set(rows)
        assert "Renamed" == rows[changed].state[NAMES[system]]
        assert len(rows) < 5

    def test_finds_nothing_after_its_last_position(self, system: System, make: Callable[..., Source]):
        """Positions lead to an end, and a quiet entity answers with one empty page."""
        source = make(system)
        position = end_of(source, end_of(source))

        assert [()] == [page.rows for page in source.changes(position)]

    def test_gives_a_record_as_its_changes_show_it(self, system: System, make: Callable[..., Source]):
        """By its id, a record has the same version, order and state as in a page."""
        source = make(system)
        row = next(iter(source.changes(""))).rows[0]

        assert row == source.record(row.id)

    def test_tells_that_there_is_no_such_record(self, system: System, make: Callable[..., Source]):
        """None is the system's own word that no record has the id, not just any 404."""
        assert make(system).record(NOBODY) is None

    def test_gives_several_records_and_leaves_out_what_is_not_there(self, system: System, make: Callable[..., Source]):
        """More ids than fit one request, one of them of nobody."""
        source = make(system)
        ids = list(listed(source))[:60]

        found = [row.id for page in source.records([*ids, NOBODY]) for row in page.rows]
        assert sorted(ids) == sorted(found)

    def test_lists_the_version_of_every_record(self, system: System, make: Callable[..., Source]):
        """The listing of ids has the versions that pages of changes have."""
        source = make(system, page_size=50)

        versions = {row.id: row.version for page in source.changes("") for row in page.rows}
        assert versions == listed(source)

    def test_order_grows_with_each_change_of_a_record(self, system: System, hands: Hands, make: Callable[..., Source]):
        """A later state of a record never has a smaller order, and always another version."""
        source = make(system)
        record_id = hands.create(system, "One")
        states = [source.record(record_id)]
        for name in ("Two", "Three"):
            hands.rename(system, record_id, name)
            states.append(source.record(record_id))

        orders = [state.order for state in states if state]
        assert sorted(orders) == orders
        assert 3 == len({state.version for state in states if state})

    def test_a_deleted_record_is_gone_by_its_id_and_from_the_listing(
        self, system: System, hands: Hands, make: Callable[..., Source]
    ):
        """Where the source reports deletes, the next page of changes names it as well."""
        source = make(system)
        record_id = hands.create(system)
        position = end_of(source)
        hands.delete(system, record_id)

        reported = [gone for page in source.changes(position) for gone in page.deleted]
        assert source.record(record_id) is None
        assert record_id not in listed(source)
        assert ([record_id] if source.reports_deletes else []) == reported

    def test_counts_its_requests(self, system: System, make: Callable[..., Source]):
        """One per page and one per record."""
        source = make(system)
        end_of(source)
        source.record(NOBODY)

        assert 2 == source.requests

    @pytest.mark.parametrize(
        ("fault", "next_step", "code", "retry_after_s"),
        [
            ({"action": "status", "status": 403, "body": {"error": {"code": "x"}}}, Next.STOP, PrivilegeMissing, None),
            ({"action": "status", "status": 404, "body": {"error": {"code": "x"}}}, Next.STOP, SettingsError, None),
            ({"action": "status", "status": 429, "headers": {"Retry-After": "7"}}, Next.RETRY, Throttled, 7.0),
            ({"action": "status", "status": 503, "body": "<html>"}, Next.RETRY, Unavailable, None),
            ({"action": "status", "status": 404, "body": "<html>"}, Next.RETRY, SourceBroken, None),
            ({"action": "status", "status": 200, "body": "<html>"}, Next.RETRY, SourceBroken, None),
            ({"action": "corrupt_json"}, Next.RETRY, SourceBroken, None),
            ({"action": "cut"}, Next.RETRY, None, None),
        ],
    )
    def test_says_what_a_failure_means(
        self,
        system: System,
        hands: Hands,
        make: Callable[..., Source],
        fault: dict[str, object],
        next_step: Next,
        code: type | None,
        retry_after_s: float | None,
    ):
        """Each kind of failure has a code and a next step; see the table in `producers/sources.py`."""
        source = make(system)
        hands.fault(system=system.value, path=SETS[system], **fault)

        with pytest.raises(SourceFault) as raised:
            list(source.changes(""))
        assert (next_step, code.code if code else "DRW-2004", retry_after_s) == (
            raised.value.next,
            raised.value.code,
            raised.value.retry_after_s,
        )


class TestBusinessCentralSource:
    @pytest.mark.parametrize("entity", ["salesperson", "paymentTerm", "shipmentMethod", "companyInformation"])
    def test_reads_every_captured_entity(self, entity: str, make: Callable[..., Source]):
        """All of them answer to the same questions."""
        source = make(System.ERP, entity=entity, fields=("displayName",))

        ids = [row.id for page in source.changes("") for row in page.rows]
        assert ids
        assert sorted(ids) == sorted(listed(source))


class TestDerivedFields:
    def test_a_new_rate_shows_in_the_listing_though_no_currency_changed(
        self, hands: Hands, make: Callable[..., Source]
    ):
        """R324: the rate is in another set, and its currency keeps version and time."""
        source = make(System.ERP, entity="currency", fields=("code", "exchangeRate", "symbolOrCode"))
        before = {row.id: row for page in source.changes("") for row in page.rows}
        stamps = listed(source)
        pound = next(row.id for row in before.values() if row.state["code"] == "GBP")
        today = CLOCK.now().date().isoformat()
        amounts = {"exchangeRateAmount": 2, "relationalExchangeRateAmount": 1}
        rate = {"currencyCode": "GBP", "startingDate": today, **amounts}
        hands.edit(System.ERP, set="currencyExchangeRates", id=str(uuid.uuid4()), values=rate)

        after = listed(source)
        assert {pound} == {record_id for record_id in after if after[record_id] != stamps[record_id]}
        ((row,),) = [page.rows for page in source.records([pound])]
        assert (Decimal(2), "£") == (row.state["exchangeRate"], row.state["symbolOrCode"])
        assert before[pound].version == row.version
        assert row == source.record(pound)

    def test_a_customer_says_which_contact_is_its_company(self, hands: Hands, make: Callable[..., Source]):
        """From a relation, by which persons in the ERP name the company that they belong to."""
        source = make(System.ERP, fields=("number", "companyContactNumber"))
        rows = [row for page in source.changes("") for row in page.rows]
        companies = {row["number"] for row in hands.control("GET", "truth/erp/contacts") if row["type"] == "Company"}

        found = {row.state["companyContactNumber"] for row in rows}
        assert len(found & companies) > 50
        assert found <= {*companies, None}
        assert all(stamp.startswith('W/"') and "+" in stamp for stamp in listed(source).values())
        assert rows[0] == source.record(rows[0].id)


class TestDataverseSource:
    @pytest.mark.parametrize(
        ("entity", "name"),
        [("systemuser", "fullname"), ("transactioncurrency", "currencyname"), ("bcbi_company", "bcbi_name")],
    )
    def test_reads_every_captured_entity(self, entity: str, name: str, make: Callable[..., Source]):
        """All of them answer to the same questions."""
        source = make(System.CRM, entity=entity, fields=(name,))

        ids = [row.id for page in source.changes("") for row in page.rows]
        assert ids
        assert sorted(ids) == sorted(listed(source))

    def test_a_forgotten_position_asks_for_a_snapshot(self, hands: Hands, make: Callable[..., Source]):
        """The system's own code says that its memory of the link is gone."""
        source = make(System.CRM)
        position = end_of(source)
        hands.control("POST", "expire", {"what": "delta_links"})

        with pytest.raises(SourceFault) as raised:
            list(source.changes(position))
        assert (Next.SNAPSHOT, PositionExpired.code) == (raised.value.next, raised.value.code)

    def test_a_refused_position_asks_for_a_snapshot(self, make: Callable[..., Source]):
        """A link that is refused for any other reason is a lost position too: the set may be well."""
        source = make(System.CRM)
        position = end_of(source).partition("deltatoken=")[0] + "deltatoken=nonsense"

        with pytest.raises(SourceFault) as raised:
            list(source.changes(position))
        assert (Next.SNAPSHOT, PositionExpired.code) == (raised.value.next, raised.value.code)


class TestToFault:
    @pytest.mark.parametrize("status", [418, 302, 204])
    def test_takes_an_answer_that_no_table_knows_for_nonsense(self, status: int):
        """Nothing is taken for an answer that is not one; it is asked again."""
        fault = to_fault(Reply(status=status), CLOCK.now())

        assert (Next.RETRY, SourceBroken.code) == (fault.next, fault.code)
