"""`drawbar couplings export | import`: what a file holds, and what becomes of its pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drawbar.cli.couplings import app
from drawbar.cli.transfer import PairOf, standing_of
from schemas.coupling import Home, PairState, Row
from tests.cli.rows_fake import JANE, JR, PEOPLE, PETE, PS, FakeRows, a_row, a_salesperson, a_user, order_in, run

COUPLED = a_row(erp=a_salesperson(), crm=a_user(), state=PairState.COUPLED)
ALONE = (a_row(erp=a_salesperson()), a_row(crm=a_user()))
OURS = PairOf(PEOPLE, JR, JANE)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    assert 0 == run(app, "export", str(file), rows=FakeRows([COUPLED])).exit_code
    return file


def by_key(*rows: Row) -> dict[str, Row]:
    return {f"{row.mapping}:{row.id}": row for row in rows}


class TestExport:
    def test_holds_ids_and_keys_and_nothing_else_of_a_record(self, exported: Path):
        header, line = (json.loads(text) for text in exported.read_text("utf-8").splitlines())

        assert ("drawbar-couplings", 1, 1) == (header["format"], header["version"], header["pairs"])
        assert (PEOPLE, JR, JANE, "JR") == tuple(line[name] for name in ("mapping", "erp_id", "crm_id", "erp_key"))
        assert "Jo Roe" not in exported.read_text("utf-8")

    def test_is_for_its_owner_only(self, exported: Path):
        assert 0o600 == exported.stat().st_mode & 0o777


class TestImport:
    def test_passes_over_what_is_coupled(self, exported: Path):
        """So it can be killed and repeated."""
        rows = FakeRows([COUPLED])
        result = run(app, "import", str(exported), rows=rows)

        assert (0, []) == (result.exit_code, rows.sent)

    def test_orders_as_a_person_would_and_overwrites_nothing(self, exported: Path):
        rows = FakeRows(ALONE)
        result = run(app, "import", str(exported), "--wait-s", "1", rows=rows)
        (order,) = (order_in(message) for message in rows.sent)

        assert ("import", JR, JANE, "agree") == (order.by, order.erp_id, order.crm_id, order.use)
        assert 1 == result.exit_code  # nobody answered

    def test_sends_nothing_in_a_preview(self, exported: Path):
        rows = FakeRows(ALONE)
        result = run(app, "import", str(exported), "--preview", rows=rows)

        assert (0, [], "1 to couple\n") == (result.exit_code, rows.sent, result.out)

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text.replace("drawbar-couplings", "other"),
            lambda text: text.replace('"version": 1', '"version": 2'),
            lambda text: text.replace('"company_id": ""', '"company_id": "another"'),
            lambda text: text.splitlines()[0] + "\n",
            lambda text: text.replace(PEOPLE, "unknown"),
            lambda text: text + "not json\n",
            lambda _: "",
        ],
    )
    def test_refuses_a_file_that_is_not_for_this_installation(self, exported: Path, change):
        exported.write_text(change(exported.read_text("utf-8")), "utf-8")
        rows = FakeRows(ALONE)

        assert (2, []) == (run(app, "import", str(exported), rows=rows).exit_code, rows.sent)


class TestStanding:
    def test_is_due_when_both_are_there_and_free(self):
        assert "due" == standing_of(OURS, by_key(*ALONE))

    def test_waits_for_what_capture_has_not_brought(self):
        assert "waits for erp" == standing_of(OURS, {})
        assert "waits for crm" == standing_of(OURS, by_key(ALONE[0]))

    def test_names_who_holds_a_record(self):
        """A conflict is listed; it is not sent, and not undone."""
        other = a_row(erp=a_salesperson(), crm=a_user(PETE), state=PairState.COUPLED)
        taken = Row(mapping=PEOPLE, id=JANE, home=Home(belongs_to=PS))

        assert f"taken: the ERP record has crm {PETE}" == standing_of(OURS, by_key(other))
        assert f"taken: the CRM record has erp {PS}" == standing_of(OURS, by_key(ALONE[0], taken))
