"""`drawbar check`: one finding for each thing that is needed; what to do about each fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from drawbar.business_central import BusinessCentral
from drawbar.cli.check import Finding, check, exit_code, probe_api
from drawbar.dataverse import Dataverse
from drawbar.ports import NoReply, Reply
from schemas.errors import BusUnavailable, MappingFileError, PrivilegeMissing, SettingsError, Unreachable
from schemas.records import System
from tests.cli.rows_fake import app_of, run, shipped

app = app_of(check)
COMPANY = "c0bba000-0000-4000-8000-000000000001"
COLUMNS = sorted(
    {name for mapping in shipped().values() for name in (*mapping.captured_fields(System.CRM), *mapping.defaults.crm)}
)


class FakeApi:
    """Implements `drawbar.ports.Http` as a service where all is well; `odd` answers some requests in another way."""

    def __init__(self, odd: Callable[[str, str], Reply | None] = lambda _method, _path: None) -> None:
        self.odd, self.asked = odd, list[tuple[str, str]]()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        self.asked.append((method, path))
        odd = self.odd(method, path)
        if odd is not None:
            return odd
        if method == "PATCH":
            assert {} == body
            return Reply(status=412 if "(" in path and "companies" not in path else 409, body=an_error(path))
        if path.startswith("EntityDefinitions"):
            return Reply(status=200, body={"value": [{"LogicalName": name} for name in COLUMNS]})
        return Reply(status=200, body={"value": [a_record(path, 1), a_record(path, 2)]})


def an_error(path: str) -> dict[str, Any]:
    code = "Request_EntityChanged" if "companies(" in path else "0x80060882"
    return {"error": {"code": code, "message": ""}}


def a_record(path: str, number: int) -> dict[str, Any]:
    names = parse_qs(urlsplit(path).query).get("$select", [""])[0].split(",")
    return {
        **dict.fromkeys(names, f"id-{number}"),
        "@odata.etag": f'W/"{number}"',
        "versionnumber": number,
        "modifiedon": "2026-03-02T09:00:00Z",
        "lastModifiedDateTime": "2026-03-02T09:00:00Z",
    }


def only_one_company(_method: str, path: str) -> Reply | None:
    if path.startswith("bcbi_companies") and "$filter" in path:
        return Reply(status=200, body={"value": [a_record(path, 1)]})
    return None


def found(system: System, odd: Callable[[str, str], Reply | None] = lambda _method, _path: None) -> list[Finding]:
    def also(method: str, path: str) -> Reply | None:
        return odd(method, path) or only_one_company(method, path)

    adapter = BusinessCentral(company_id=COMPANY) if system is System.ERP else Dataverse()
    return list(probe_api(FakeApi(also), adapter, shipped(), company_id=COMPANY))


def faults(system: System, odd: Callable[[str, str], Reply | None]) -> list[tuple[str, str]]:
    return [(finding.what, finding.fault.code) for finding in found(system, odd) if finding.fault is not None]


class TestProbeApi:
    @pytest.mark.parametrize("system", list(System))
    def test_a_service_where_all_is_well_has_no_fault(self, system):
        """Every captured entity is read; every one that is written is asked for the right."""
        findings = found(system)

        assert [] == [finding for finding in findings if finding.fault is not None]
        written = {
            "erp": ["erp contact: write", "erp customer: write", "erp salesperson: write"],
            "crm": ["crm account: write", "crm contact: write", "crm transactioncurrency: write"],
        }
        assert written[system.value] == [finding.what for finding in findings if finding.what.endswith("write")]

    def test_nothing_is_written(self):
        """A conditional write with another version than the record's cannot happen."""
        api = FakeApi(only_one_company)

        list(probe_api(api, Dataverse(), shipped(), company_id=COMPANY))

        assert {"GET", "PATCH"} == {method for method, _ in api.asked}
        assert 3 == sum(method == "PATCH" for method, _ in api.asked)

    @pytest.mark.parametrize("system", list(System))
    def test_a_missing_write_right_is_told(self, system):
        """403 comes before the version is looked at."""
        code = {"error": {"code": "Authorization_RequestDenied"}}
        denied = faults(system, lambda method, _path: Reply(status=403, body=code) if method == "PATCH" else None)

        assert {PrivilegeMissing.code} == {code for _, code in denied}
        assert all(what.endswith("write") for what, _ in denied)

    def test_a_missing_read_right_is_told_of_its_entity_alone(self):
        """The others are looked at all the same."""
        denied = faults(System.ERP, lambda _m, path: Reply(status=403) if "salespeoplePurchasers" in path else None)

        assert [("erp salesperson: read", PrivilegeMissing.code)] == denied

    def test_a_company_that_is_not_there_is_a_wrong_setting(self):
        """`erp.company_id`."""
        gone = faults(System.ERP, lambda _m, path: Reply(status=404) if path == f"companies({COMPANY})" else None)

        assert [("erp company", SettingsError.code)] == gone

    def test_a_field_that_the_erp_does_not_have_is_named(self):
        """One request tells that something is wrong; one for each field tells what."""
        wrong = found(System.ERP, lambda _m, path: Reply(status=400) if "creditLimit" in path else None)

        (fault,) = [finding.fault for finding in wrong if finding.fault is not None]
        assert (MappingFileError.code, "erp:customer has no field creditLimit") == (fault.code, fault.message)
        assert "customer-account" in fault.where

    def test_a_set_that_cannot_be_read_is_told_of_the_field_that_it_gives(self):
        """Exchange rates are in a set of their own, with a right of its own."""
        denied = faults(System.ERP, lambda _m, path: Reply(status=403) if "currencyExchangeRates" in path else None)

        assert [("erp currency: exchangeRate", PrivilegeMissing.code)] == denied

    def test_a_column_that_the_crm_does_not_have_is_named(self):
        """Its live metadata tells."""
        columns = [{"LogicalName": name} for name in COLUMNS if name != "creditlimit"]
        wrong = found(
            System.CRM,
            lambda _m, path: (
                Reply(status=200, body={"value": columns}) if path.startswith("EntityDefinitions") else None
            ),
        )

        (fault,) = [finding.fault for finding in wrong if finding.fault is not None]
        assert "crm:account has no field creditlimit" == fault.message

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            ([], "no row of crm:bcbi_company has"),
            ([1, 2], "2 rows of crm:bcbi_company have"),
            ([None], "names no owning team"),
        ],
    )
    def test_the_company_row_must_be_one_with_a_team(self, rows, said):
        """Accounts wait until it is there; its team owns what nobody else owns."""

        def odd(_method: str, path: str) -> Reply | None:
            if not path.startswith("bcbi_companies") or "$filter" not in path:
                return None
            values = [a_record(path, row or 1) for row in rows]
            for value, row in zip(values, rows, strict=True):
                value["_bcbi_defaultowningteamid_value"] = "id-1" if row else None
            return Reply(status=200, body={"value": values})

        (fault,) = [finding.fault for finding in found(System.CRM, odd) if finding.fault is not None]

        assert said in fault.message

    def test_a_service_that_does_not_answer_ends_the_probe(self):
        """One fault, not one for each entity."""

        def silent(_method: str, _path: str) -> Reply:
            raise NoReply("ConnectTimeout", sent=False)

        assert [("erp answers", "DRW-2004")] == faults(System.ERP, silent)

    def test_what_the_service_says_is_not_repeated(self):
        """Only its code: its text can hold data."""
        body = {"error": {"code": "Internal_ServerError", "message": "customer Jane Roe"}}
        (finding, *_) = found(System.ERP, lambda _m, _p: Reply(status=500, body=body))

        assert Unreachable.code == finding.fault.code
        assert "Internal_ServerError" in finding.fault.message
        assert "Jane" not in finding.fault.for_people()


class TestExitCode:
    def test_what_is_wrong_here_comes_first(self):
        """2 for settings and mappings, else 3 for what is out of reach."""
        assert 2 == exit_code([BusUnavailable("x"), SettingsError("x")])
        assert 3 == exit_code([BusUnavailable("x"), PrivilegeMissing("x")])


class TestCheck:
    @pytest.fixture(autouse=True)
    def _clean(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)

    def test_quick_needs_no_system(self):
        """Settings, mappings; no broker is named, which is a way to run."""
        result = run(app, "check", "--quick", "--json")

        assert (0, ["settings", "mappings", "broker"]) == (result.exit_code, [line["check"] for line in result.json])
        assert all(line["ok"] for line in result.json)

    def test_each_system_without_settings_is_told(self):
        """Exit code 2, and the name of the variable."""
        result = run(app, "check", "--json")

        assert 2 == result.exit_code
        assert ["erp settings", "crm settings"] == [line["check"] for line in result.json if not line["ok"]]
        assert "DRAWBAR_CRM__BASE_URL" in result.json[-1]["where"]

    def test_a_connection_file_that_is_not_there_is_one_fault(self, tmp_path):
        """Nothing else can be looked at."""
        result = run(app, "check", "--connection-file", str(tmp_path / "none.json"))

        assert 2 == result.exit_code
        assert "FAULT  settings" in result.out
        assert "1 check, 1 fault" in result.out
