"""What the commands ask of the two systems is understood however these answer: every value of every switch, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import pytest

from drawbar.asking import Asker
from drawbar.cli.check import Finding, probe_api
from drawbar.cli.mappings import live_facts
from drawbar.cli.own_currency import OwnCurrency, settle
from drawbar.odata import ODataHttp, adapter_for, open_http
from processors.mapping_files import load_mappings
from schemas.errors import PrivilegeMissing, SettingsError
from schemas.records import System
from tests.producers.sandboxes import Hands, sandbox
from tests.sandbox.rounds import ROUNDS

NOBODY = "00000000-0000-4000-8000-00000000dead"


@pytest.fixture(scope="module", params=ROUNDS)
def hands(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    """A sandbox for every way in which the services may answer."""
    with sandbox(tmp_path_factory.mktemp("sandbox"), ROUNDS[request.param]) as hands:
        yield hands


@pytest.fixture
def crm(hands: Hands) -> Iterator[ODataHttp]:
    http = open_http(hands.settings(), System.CRM)
    yield http
    http.close()


def findings(hands: Hands, system: System, company_id: str = "") -> Sequence[Finding]:
    settings = hands.settings()
    company_id = company_id or settings.erp.company_id
    settings = settings.model_copy(update={"erp": settings.erp.model_copy(update={"company_id": company_id})})
    http = open_http(settings, system)
    try:
        return list(probe_api(http, adapter_for(settings, system), load_mappings(None), company_id=company_id))
    finally:
        http.close()


class TestCheck:
    @pytest.mark.parametrize("system", list(System))
    def test_finds_all_well(self, hands: Hands, system: System):
        """The right to write is told by a refusal for the version, whatever its status and code."""
        found = findings(hands, system)

        assert [] == [finding.fault for finding in found if finding.fault is not None]
        written = [finding.note for finding in found if finding.what.endswith(": write")]
        assert ["allowed, as far as can be told without writing"] * 3 == written

    def test_tells_a_company_that_there_is_not_from_a_field(self, hands: Hands):
        codes = {finding.fault.code for finding in findings(hands, System.ERP, NOBODY) if finding.fault is not None}

        assert {SettingsError.code} == codes

    @pytest.mark.parametrize("system", list(System))
    def test_tells_a_right_that_is_missing(self, hands: Hands, system: System):
        entity = {System.ERP: "customers", System.CRM: "account"}[system]
        rule = {"system": system.value, "app": hands.info[system.value]["client_id"], "entity": entity}
        hands.control("POST", "grants", {**rule, "operation": "read", "allowed": False})
        found = findings(hands, system)
        hands.control("POST", "grants", {**rule, "operation": "read", "allowed": True})

        assert {PrivilegeMissing.code} == {finding.fault.code for finding in found if finding.fault is not None}


class TestLiveFacts:
    def test_know_every_mapped_entity(self, hands: Hands):
        """Metadata says which fields there are, and how long."""
        facts = live_facts(hands.settings(), tuple(System), load_mappings(None).values())

        assert all(facts.values())
        assert 160 == facts[System.CRM, "account"]["name"].length


class TestOwnCurrency:
    def test_is_as_well_served_by_a_row_that_somebody_else_made(self, hands: Hands, crm: ODataHttp):
        """Between our look and our request."""
        asker, crowns = Asker(http=crm, system=System.CRM), OwnCurrency(code="NOK", rate=Decimal("0.8"))
        assert "made" == settle(asker, crowns, may_write=True).state
        hands.fault(
            system="crm", method="GET", path="transactioncurrencies", action="status", status=200, body={"value": []}
        )

        assert "as it should be" == settle(asker, crowns, may_write=True).state
