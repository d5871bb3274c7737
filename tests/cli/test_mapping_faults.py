"""Mapping files against the fields that the systems have: what is found, where, and what is suggested."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from drawbar.cli.mapping_faults import Finding, Live, idle, mismatches, unknown_entities
from drawbar.cli.mappings import app, live_facts
from drawbar.metadata import FieldFacts, Form, erp_facts
from processors.mapping_files import load_mappings, read_files, shipped_folder
from schemas.errors import SourceBroken
from schemas.records import System
from tests.cli.rows_fake import run
from tests.producers.sandboxes import Hands, sandbox

CUSTOMERS = "customer-account"
Spoil = Callable[..., Path]


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    with sandbox(tmp_path_factory.mktemp("sandbox")) as found:
        yield found


@pytest.fixture(scope="module")
def live(hands: Hands) -> Live:
    return live_facts(hands.settings(), tuple(System), load_mappings(None).values())


@pytest.fixture
def spoil(tmp_path: Path) -> Spoil:
    """The shipped files in a folder, with one text of one of them replaced."""
    folder = Path(shutil.copytree(shipped_folder(), tmp_path / "mappings"))

    def spoiled(old: str, new: str, name: str = CUSTOMERS) -> Path:
        path = folder / f"{name}.yaml"
        text = path.read_text()
        assert old in text, "the test spoils what is there"
        path.write_text(text.replace(old, new, 1))
        return folder

    return spoiled


@pytest.fixture
def one_line(tmp_path: Path) -> Callable[..., Path]:
    """A folder with a mapping of one line, beside the shipped ones it may refer to."""

    def written(line: dict[str, object], **keys: object) -> Path:
        folder = tmp_path / "one"
        shutil.copytree(shipped_folder(), folder, dirs_exist_ok=True)
        fields = [{"erp": "displayName", "crm": "name", "erp_length": 100}, line]
        mapping = {"name": CUSTOMERS, "erp": "customer", "crm": "account", "fields": fields}
        (folder / f"{CUSTOMERS}.yaml").write_text(yaml.safe_dump({**mapping, **keys}, sort_keys=False))
        return folder

    return written


def found_in(folder: Path, live: Live) -> list[Finding]:
    return list(mismatches(read_files(folder), live))


def said(findings: list[Finding]) -> list[str]:
    return [f"{finding.error.message} | {finding.error.todo}" for finding in findings]


class TestMismatches:
    def test_finds_nothing_in_the_shipped_files(self, live: Live):
        assert [] == said(found_in(shipped_folder(), live))

    @pytest.mark.parametrize(
        ("old", "new", "message", "todo"),
        [
            ("crm: address1_city", "crm: adress1_city", "has no field 'adress1_city'", "did you mean 'address1_city'?"),
            ("{ field: blocked,", "{ field: bloked,", "has no field 'bloked'", "did you mean 'blocked'?"),
            ("key: { erp: number,", "key: { erp: xyzq,", "erp:customer has no field 'xyzq'", "names are those"),
            ("[companyContactNumber]", "[companyContact]", "has no field", "did you mean 'companyContactNumber'?"),
            ("[{ erp: displayName, crm: name }]", "[{ erp: name, crm: name }]", "has no field 'name'", "did you mean"),
            ("equals: 3 }", "equals: 33 }", "customertypecode has no option 33", "there are: 1, 2, 3,"),
            ("blocked, equals: null", "blocked, equals: all", "blocked has no option 'all'", "did you mean 'All'?"),
            ("customertypecode: 3", "customertypecode: 33", "customertypecode has no option 33", "there are: 1, 2"),
            ("customertypecode: 3", "createdon: x", "crm does not take createdon when a record is made", "take the"),
            ("NO CHARGE: 2", "NO CHARGE: 7", "address1_freighttermscode has no option 7", "there are: 1, 2"),
            ("crm_length: 200", "crm_length: 201", "crm_length is 201; websiteurl takes 200", "write crm_length: 200"),
            ("currency: true, type: id", "type: integer", "erp:currencyCode is a text", "write type: text"),
            ("type: decimal, ", "", "erp:creditLimit is a number, the line takes it for type text", "type: decimal"),
            ("crm: ownerid, owner", "crm: fax, owner", "crm:fax is a text, not a lookup", "a lookup to systemuser"),
            ("erp: shipmentMethodId", "erp: creditLimit", "erp:creditLimit is a number", "map another field"),
        ],
    )
    def test_names_what_is_wrong_and_what_is_right(
        self, spoil: Spoil, live: Live, old: str, new: str, message: str, todo: str
    ):
        """With the line of the file."""
        folder = spoil(old, new)
        findings = found_in(folder, live)
        text = (folder / f"{CUSTOMERS}.yaml").read_text()
        line = text[: text.index(new)].count("\n") + 1 if new else 0

        assert findings
        assert message in said(findings)[0]
        assert todo in said(findings)[0]
        assert findings[0].stops
        if new:
            assert f"{CUSTOMERS}.yaml:{line}" in findings[0].error.where

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ({"erp": "balanceDue", "crm": "createdon"}, "crm does not take createdon when a record is made"),
            ({"erp": "companyContactNumber", "crm": "tickersymbol"}, "erp does not take companyContactNumber"),
            (
                {"erp": "salespersonCode", "crm": "primarycontactid", "reference": "salesperson-systemuser"},
                "crm:primarycontactid points to contact, not to systemuser",
            ),
            (
                {
                    "erp": "currencyId",
                    "crm": "parentaccountid",
                    "reference": CUSTOMERS,
                    "reference_by": "id",
                    "names_entity": True,
                },
                "names_entity: crm:parentaccountid points to account only",
            ),
            ({"crm": "name2", "company": True, "direction": "to_crm"}, "crm:account has no field 'name2'"),
            ({"crm": "parentaccountid", "company": True, "direction": "to_crm"}, "not to bcbi_company"),
        ],
    )
    def test_knows_what_a_line_may_write(
        self, one_line: Callable[..., Path], live: Live, line: dict[str, object], message: str
    ):
        assert message in " ".join(said(found_in(one_line(line), live)))

    def test_a_column_that_can_only_be_made_may_be_written_once(self, one_line: Callable[..., Path]):
        """`once: true` is what it suggests."""
        number = FieldFacts(name="accountnumber", form=Form.TEXT, length=20, updatable=False)
        name = FieldFacts(name="name", form=Form.TEXT, length=100)
        live: Live = {(System.CRM, "account"): {"accountnumber": number, "name": name}}
        line = {"erp": "number", "crm": "accountnumber", "direction": "to_crm"}

        (finding,) = found_in(one_line(line), live)
        assert "crm does not let accountnumber be changed | write once: true" in said([finding])[0]
        assert [] == found_in(one_line({**line, "once": True}), live)

    def test_tells_of_values_that_may_be_too_long(self, spoil: Spoil, live: Live):
        """The check does not fail for it: perhaps no value is."""
        (finding,) = found_in(spoil(", erp_length: 255, crm_length: 200", ""), live)

        assert not finding.stops
        assert "website may hold 255 characters, websiteurl takes 200" == finding.error.message

    def test_leaves_out_what_is_switched_off(self, spoil: Spoil, live: Live):
        assert [] == found_in(spoil("crm: websiteurl,", "crm: nonsense, enabled: false,"), live)

    def test_says_that_a_system_has_no_such_table(self, live: Live):
        gone: Live = {**live, (System.CRM, "bcbi_company"): None}
        findings = found_in(shipped_folder(), gone)

        assert ["the CRM has no entity bcbi_company"] == [finding.error.message for finding in findings]

    def test_asks_nothing_of_a_system_that_is_not_there(self, spoil: Spoil):
        assert [] == found_in(spoil("crm: websiteurl", "crm: nonsense"), {})


class TestUnknownEntities:
    def test_are_told_with_the_nearest_name(self, spoil: Spoil):
        (finding,) = unknown_entities(read_files(spoil("erp: customer\n", "erp: custommer\n")).values())

        assert "nothing is known of erp:custommer | did you mean 'customer'?" == said([finding])[0]


class TestIdle:
    def test_finds_nothing_in_the_shipped_files(self):
        assert [] == [finding for file in read_files(None).values() for finding in idle(file)]

    @pytest.mark.parametrize(
        ("line", "said_of_it"),
        [
            ({"conflict": "erp", "direction": "to_crm"}, "conflict: a line that goes one way has none"),
            ({"type": "boolean", "crm_length": 20}, "crm_length: only text is cut"),
            ({"clear_when_uncoupled": True}, "clear_when_uncoupled: only a reference can be uncoupled"),
            ({"reference_by": "id"}, "reference_by: the line has no reference"),
            ({"reference": CUSTOMERS, "transform": "trim"}, "transform: the value is looked up, not carried"),
        ],
    )
    def test_finds_keys_of_a_line_without_effect(
        self, one_line: Callable[..., Path], line: dict[str, object], said_of_it: str
    ):
        folder = one_line({"erp": "email", "crm": "emailaddress1", **line})
        (finding,) = idle(read_files(folder)[CUSTOMERS])

        assert (said_of_it, False) == (finding.error.message, finding.stops)

    @pytest.mark.parametrize(
        ("keys", "said_of_it"),
        [
            ({"direction": "to_crm", "create": "to_erp"}, "create: to_erp: nothing flows that way"),
            ({"create": "to_crm", "defaults": {"erp": {"type": "Person"}}}, "defaults.erp: no record is made to_erp"),
            ({"direction": "to_crm", "filter": {"crm": [{"field": "name"}]}}, "filter.crm: nothing flows to_erp"),
            ({"examples": [{"name": "an old one", "erp": {"email": "a"}, "crm": {}}]}, "so it shows nothing"),
        ],
    )
    def test_finds_keys_of_a_mapping_without_effect(
        self, one_line: Callable[..., Path], keys: dict[str, object], said_of_it: str
    ):
        folder = one_line({"erp": "email", "crm": "emailaddress1"}, **keys)

        assert any(said_of_it in finding.error.message for finding in idle(read_files(folder)[CUSTOMERS]))

    def test_finds_what_a_mapping_that_is_looked_up_cannot_use(self, spoil: Spoil):
        folder = spoil("role: reference", "role: reference\ncreate: both", "payment-term")
        (finding,) = idle(read_files(folder)["payment-term"])

        assert "create: a mapping of role reference is only looked up" == finding.error.message


class TestErpFacts:
    def test_a_document_that_is_none_is_told(self):
        """A proxy's page, for example."""
        with pytest.raises(SourceBroken):
            erp_facts(b"<html><br>")

    def test_reads_enums_wherever_they_stand(self):
        document = b"""<Edmx xmlns="http://docs.oasis-open.org/odata/ns/edmx"><DataServices><Schema Namespace="N">
          <EntityType Name="t"><Property Name="kind" Type="N.k"/><Property Name="name" Type="Edm.String" MaxLength="7"/>
          <Property Name="odd" Type="Edm.Stream"/></EntityType>
          <EnumType Name="k"><Member Name="_x0020_"/><Member Name="In_x0020_Review"/></EnumType>
          <EntityContainer Name="c"><EntitySet Name="ts" EntityType="N.t"/></EntityContainer>
        </Schema></DataServices></Edmx>"""
        facts = erp_facts(document)["ts"]

        assert frozenset(("", "In Review")) == facts["kind"].options
        assert (Form.CHOICE, Form.TEXT, 7, Form.OTHER) == (
            facts["kind"].form,
            facts["name"].form,
            facts["name"].length,
            facts["odd"].form,
        )


class TestCheckOfARunningSystem:
    @pytest.fixture
    def connection(self, hands: Hands, tmp_path: Path) -> str:
        path = tmp_path / "connection.json"
        path.write_text(json.dumps({**hands.info, "bootstrap_servers": "127.0.0.1:1"}))
        return str(path)

    def test_holds_the_files_against_both_systems(self, connection: str):
        result = run(app, "check", "--connection-file", connection)

        assert 0 == result.exit_code, result.err
        assert "held against the ERP and the CRM: all right" in result.out

    def test_fails_for_a_field_that_is_not_there(self, spoil: Spoil, connection: str):
        """Exit code 2, file, line and suggestion."""
        folder = spoil("crm: websiteurl", "crm: webiteurl")
        result = run(app, "check", str(folder), "--connection-file", connection, "--json")

        assert 2 == result.exit_code
        assert ("DRW-1005", "did you mean 'websiteurl'?", True) == tuple(
            result.json[0][name] for name in ("code", "next_step", "stops")
        )

    def test_tells_the_wrong_name_besides_the_example_that_it_spoils(self, spoil: Spoil, connection: str):
        """The cause comes first."""
        folder = spoil("crm: address1_city", "crm: adress1_city")
        result = run(app, "check", str(folder), "--connection-file", connection, "--json")

        assert ["DRW-1005", "DRW-1003"] == [fault["code"] for fault in result.json if fault["stops"]]

    def test_says_when_a_system_does_not_answer(self, hands: Hands, tmp_path: Path):
        """Exit code 3: the files may be right."""
        crm = {**hands.info["crm"], "base_url": "https://127.0.0.1:9/api/data/v9.2"}
        path = tmp_path / "connection.json"
        path.write_text(json.dumps({**hands.info, "crm": crm, "bootstrap_servers": "127.0.0.1:1"}))
        result = run(app, "check", "--connection-file", str(path))

        assert 3 == result.exit_code
        assert "DRW-2004" in result.err

    def test_asks_nobody_when_told_so(self, spoil: Spoil, connection: str):
        folder = spoil("crm: websiteurl", "crm: webiteurl")
        result = run(app, "check", str(folder), "--connection-file", connection, "--offline")

        assert 0 == result.exit_code, result.err
        assert "not held against the systems" in result.out
