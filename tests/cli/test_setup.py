"""`drawbar setup`: against a sandbox, as an administrator types it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drawbar.cli.setup import app
from schemas.coupling import PairState, Row
from schemas.records import System
from tests.cli.rows_fake import FakeRows, Result, a_row, a_side, run
from tests.producers.sandboxes import Hands, sandbox
from tests.sandbox.conftest import Receiver


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    with sandbox(tmp_path_factory.mktemp("sandbox")) as hands:
        yield hands


@pytest.fixture
def hub() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def system(hands: Hands, hub: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A connection file and the settings of the webhooks, in the environment."""
    path = tmp_path / "connection.json"
    path.write_text(json.dumps({**hands.info, "bootstrap_servers": "127.0.0.1:9"}, default=str), encoding="utf-8")
    monkeypatch.setenv("DRAWBAR_CONNECTION_FILE", str(path))
    monkeypatch.setenv("DRAWBAR_CAPTURE__WEBHOOK_PUBLIC_URL", hub.url)
    monkeypatch.setenv("DRAWBAR_CAPTURE__WEBHOOK_SECRET", "a secret for both")
    yield
    setup("--remove")


def setup(*options: str) -> Result:
    return run(app, "webhooks", *options)


def states(result: Result) -> Sequence[str]:
    return [json.loads(line)["state"] for line in result.out.splitlines()]


class TestSetupWebhooks:
    def test_makes_what_is_missing_and_nothing_the_second_time(self):
        assert (1, {"missing"}) == ((first := setup("--check", "--json")).exit_code, set(states(first)))

        assert (0, {"made"}) == ((made := setup("--json")).exit_code, set(states(made)))
        assert (0, {"as it should be"}) == ((again := setup("--json")).exit_code, set(states(again)))
        assert (0, {"as it should be"}) == ((looked := setup("--check", "--json")).exit_code, set(states(looked)))

    def test_takes_away_what_leads_to_the_address(self):
        made = setup("--json")

        assert (0, ["removed"] * len(states(made))) == ((gone := setup("--remove", "--json")).exit_code, states(gone))
        assert (0, "nothing is registered for this address\n") == ((again := setup("--remove")).exit_code, again.out)

    def test_watches_the_columns_of_the_mappings(self, hands: Hands):
        """An update of any other column is no news."""
        setup("--system", "crm")

        steps = hands.control("GET", "truth/crm/sdkmessageprocessingsteps")
        columns = {step["name"]: (step["filteringattributes"] or "").split(",") for step in steps}
        assert {"name", "telephone1", "ownerid"} <= set(columns["drawbar: Update of account"])
        assert [""] == columns["drawbar: Create of account"]

    def test_is_about_one_system_when_asked(self):
        assert {"erp"} == {json.loads(line)["system"] for line in setup("--system", "erp", "--json").out.splitlines()}

    def test_names_the_right_that_is_missing(self, hands: Hands):
        """What the other system has is registered all the same."""
        rule = {"system": "crm", "app": hands.info["crm"]["client_id"], "entity": "serviceendpoint"}
        hands.control("POST", "grants", {**rule, "operation": "create", "allowed": False})
        result = setup("--json")
        hands.control("POST", "grants", {**rule, "operation": "create", "allowed": True})

        assert 3 == result.exit_code
        assert "DRW-2003" in result.err
        assert "prvCreateServiceEndpoint" in result.err
        assert "made" in states(result)

    def test_says_that_the_erp_does_not_reach_the_address(self):
        result = setup("--system", "erp", "--url", "http://127.0.0.1:9")

        assert (3, True) == (result.exit_code, "DRW-2005" in result.err)

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            (("--check", "--remove"), "DRW-1004"),
            (("--system", "both"), "DRW-1004"),
            (("--url", "hub.example.com"), "DRW-1001"),
        ],
    )
    def test_refuses_what_makes_no_sense(self, options: Sequence[str], code: str):
        result = setup(*options)

        assert (2, True) == (result.exit_code, result.err.startswith(code))

    def test_prints_the_secret_nowhere(self, monkeypatch: pytest.MonkeyPatch):
        shown = setup()
        monkeypatch.delenv("DRAWBAR_CAPTURE__WEBHOOK_SECRET")
        refused = setup()

        assert "a secret" not in shown.out + shown.err
        assert (2, True) == (refused.exit_code, refused.err.startswith("DRW-1001"))


class TestSetupCurrency:
    """A company of crowns, in a CRM whose base is the dollar and that has no crowns; the ERP has 1.25 dollars for one."""

    @pytest.fixture(autouse=True)
    def without_crowns(self, hands: Hands) -> Iterator[None]:
        yield
        for row in crowns(hands):
            hands.edit(System.CRM, set="transactioncurrencies", id=row["transactioncurrencyid"], delete=True)

    @pytest.fixture
    def currency(self, hands: Hands) -> Callable[..., Result]:
        rows = FakeRows(known=[company("NOK"), dollars("1.25")])

        def typed(*options: str, rows: FakeRows = rows) -> Result:
            return run(app, "currency", *options, rows=rows, settings=hands.settings())

        return typed

    def test_makes_the_row_once(self, hands: Hands, currency):
        looked, made, again = currency("--check"), currency(), currency()

        assert (1, "NOK: missing (0.8 for one of the CRM's base currency)\n") == (looked.exit_code, looked.out)
        assert (0, "NOK: made (0.8 for one of the CRM's base currency)\n") == (made.exit_code, made.out)
        assert (0, "NOK: as it should be (0.8 for one of the CRM's base currency)\n") == (again.exit_code, again.out)
        (row,) = crowns(hands)
        assert ("NOK", "NOK", 2, 0.8) == tuple(
            row[name] for name in ("currencyname", "currencysymbol", "currencyprecision", "exchangerate")
        )

    def test_puts_the_rate_right(self, hands: Hands, currency):
        currency()
        later = FakeRows(known=[company("NOK"), dollars("1.6")])

        looked, changed = currency("--check", rows=later), currency("--json", rows=later)

        assert (1, True) == (looked.exit_code, "NOK: another rate (0.625 for" in looked.out)
        assert [{"code": "NOK", "rate": "0.625", "state": "changed"}] == changed.json
        assert [0.625] == [row["exchangerate"] for row in crowns(hands)]

    def test_leaves_the_base_currency_alone(self, currency):
        of_dollars = FakeRows(known=[company("USD"), dollars(None)])

        assert "USD: as it should be (1 for one of the CRM's base currency)\n" == currency(rows=of_dollars).out

    def test_is_as_well_served_by_a_row_that_somebody_else_made(self, hands: Hands, currency):
        """Between our look and our request."""
        rule = {"system": "crm", "method": "GET", "path": "transactioncurrencies", "times": 1}
        currency()
        hands.fault(**rule, action="status", status=200, body={"value": []})

        assert (0, True) == ((done := currency()).exit_code, "as it should be" in done.out)
        assert 1 == len(crowns(hands))

    @pytest.mark.parametrize(
        ("known", "said"),
        [
            ([], "DRW-1004 the company's own currency was not captured yet"),
            (["NOK"], "DRW-6003 the ERP has no exchange rate of the CRM's base currency"),
        ],
    )
    def test_says_what_is_not_known(self, currency, known: Sequence[str], said: str):
        assert currency(rows=FakeRows(known=[company(code) for code in known])).err.startswith(said)

    def test_names_the_right_that_is_missing(self, hands: Hands, currency):
        rule = {"system": "crm", "app": hands.info["crm"]["client_id"], "entity": "transactioncurrency"}
        hands.control("POST", "grants", {**rule, "operation": "create", "allowed": False})
        refused = currency()
        hands.control("POST", "grants", {**rule, "operation": "create", "allowed": True})

        assert (3, True) == (refused.exit_code, "missing prvCreateTransactionCurrency" in refused.err)


def company(code: str) -> Row:
    return a_row("company-information", erp=a_side("c", currencyCode=code))


def dollars(rate: str | None) -> Row:
    """What one of the own currency is in dollars, by the ERP; None: the ERP has no such currency."""
    crm = a_side("d", isocurrencycode="USD", exchangerate=Decimal(1))
    if rate is None:
        return a_row("currency", crm=crm)
    erp = a_side("e", code="USD", exchangeRate=Decimal(rate))
    return a_row("currency", erp=erp, crm=crm, state=PairState.COUPLED)


def crowns(hands: Hands) -> list[dict[str, Any]]:
    rows = hands.control("GET", "truth/crm/transactioncurrencies")
    return [row for row in rows if row["isocurrencycode"] == "NOK"]
