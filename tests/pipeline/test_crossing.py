"""What a user of either system sees: changes cross, dead letters tell and heal, deletes are asked about."""

from __future__ import annotations

import pytest

from tests.pipeline.comparison import disagreements
from tests.pipeline.installation import Installation, until_within

pytestmark = [pytest.mark.kafka, pytest.mark.pipeline]


class TestChange:
    def test_made_in_the_erp_is_seen_in_the_crm(self, system: Installation):
        """A customer becomes an account under the same id, once; each later edit follows it."""
        customer = system.make_customer(addressLine1="1 Quay", country="US", creditLimit=500, salespersonCode="AA")
        system.await_value("crm", customer, "address1_line1", "1 Quay")
        system.erp.edit(customer, phoneNumber="+1 555 0100")
        system.await_value("crm", customer, "telephone1", "+1 555 0100")
        system.wait_quiet()

        assert [] == disagreements(system)

    def test_made_in_the_crm_is_seen_in_the_erp(self, system: Installation):
        """An account becomes a customer under the same id, once; each later edit follows it."""
        account = system.make_account(address1_line1="2 Pier", address1_country="US", paymenttermscode=1)
        system.await_value("erp", account, "addressLine1", "2 Pier")
        system.crm.edit(account, telephone1="+1 555 0101", paymenttermscode=3)
        system.await_value("erp", account, "phoneNumber", "+1 555 0101")
        system.wait_quiet()

        assert [] == disagreements(system)

    def test_of_different_fields_on_both_sides_is_merged(self, system: Installation):
        """Nobody's edit is lost because somebody else edited another field of the same record."""
        customer = system.make_customer()
        system.wait_quiet()
        system.erp.edit(customer, email="orders@both.example")
        system.crm.edit(customer, telephone1="+1 555 0177")
        system.wait_quiet()

        row = system.rows("erp")[customer]
        assert ("orders@both.example", "+1 555 0177") == (row["email"], row["phoneNumber"])
        assert [] == disagreements(system)

    def test_of_one_field_on_both_sides_ends_equal(self, system: Installation):
        """One of the two values stands, on both sides."""
        customer = system.make_customer()
        system.wait_quiet()
        system.erp.edit(customer, website="erp.example")
        system.crm.edit(customer, websiteurl="crm.example")
        system.wait_quiet()

        assert system.rows("erp")[customer]["website"] in ("erp.example", "crm.example")
        assert [] == disagreements(system)


class TestAutomation:
    """An application that edits a record milliseconds after our write."""

    def test_in_the_crm_is_not_taken_for_our_echo(self, system: Installation):
        """What it wrote is news, and is seen in the ERP."""
        customer = system.make_customer()
        system.wait_quiet()
        _automate(system, "crm", "accounts", "telephone1", {"address1_line2": "set by an automation"})
        system.erp.edit(customer, phoneNumber="+1 555 0178")
        system.await_value("erp", customer, "addressLine2", "set by an automation")
        system.wait_quiet()

        assert [] == disagreements(system)

    def test_in_the_erp_is_not_taken_for_our_echo(self, system: Installation):
        """What it wrote is news, and is seen in the CRM."""
        customer = system.make_customer()
        system.wait_quiet()
        _automate(system, "erp", "customers", "phoneNumber", {"addressLine2": "set by an automation"})
        system.crm.edit(customer, telephone1="+1 555 0179")
        system.await_value("crm", customer, "address1_line2", "set by an automation")
        system.wait_quiet()

        assert [] == disagreements(system)

    def test_that_overrules_our_value_wins(self, system: Installation):
        """It writes the field that we just wrote: its value, the later one, stands on both sides."""
        customer = system.make_customer()
        system.wait_quiet()
        _automate(system, "crm", "accounts", "websiteurl", {"websiteurl": "https://overruled.example"})
        system.erp.edit(customer, website="https://ours.example")
        system.await_value("erp", customer, "website", "https://overruled.example")
        system.wait_quiet()

        assert [] == disagreements(system)


class TestUncoupledOwner:
    def test_is_a_dead_letter_until_it_is_coupled(self, system: Installation):
        """Customers wait for their salesperson's user, one cause for all, and go on by themselves, as they are then."""
        system.person("ZZ", first="Zoe", last="Zander", is_user=False)
        system.person("-", first="Free", last="User", is_salesperson=False)
        moved = system.make_customer(salespersonCode="AA")
        system.wait_quiet()
        new = system.make_customer(salespersonCode="ZZ", addressLine1="first")
        system.erp.edit(moved, salespersonCode="ZZ", addressLine1="first")
        until_within(lambda: 2 == len(system.letters("--code", "owner-not-coupled")), "both have a letter", every_s=0.2)
        for text in ("second", "third", "last"):
            system.erp.edit(new, addressLine1=text)
            system.erp.edit(moved, addressLine1=text)
        system.wait_quiet()
        waiting = system.letters("--code", "owner-not-coupled")

        assert {new, moved} == {letter["ref"].rpartition(":")[2] for letter in waiting}
        assert 1 == len({letter["missing"] for letter in waiting})
        assert new not in system.rows("crm")
        assert system.rows("crm")[moved]["address1_line1"] is None

        system.drawbar(
            "couplings",
            "couple",
            "erp:salesperson:code=ZZ",
            "crm:systemuser:internalemailaddress=free.user@people.example",
        )
        system.wait_quiet()

        closed = {letter["id"]: letter["state"] for letter in system.letters("--state", "closed")}
        accounts = system.rows("crm")
        assert {letter["id"]: "closed" for letter in waiting}.items() <= closed.items()
        assert ["last", "last"] == [accounts[record]["address1_line1"] for record in (new, moved)]
        assert [] == disagreements(system)


@pytest.fixture(scope="module")
def deleted(system: Installation) -> list[str]:
    """Three customers whose accounts were deleted."""
    customers = [system.make_customer() for _ in range(3)]
    system.wait_quiet()
    for customer in customers:
        system.crm.delete(customer)
    system.wait_quiet()
    return customers


class TestDelete:
    def test_is_a_dead_letter(self, system: Installation, deleted: list[str]):
        """It does not travel by itself, and does not vanish silently."""
        letters = system.letters("--code", "counterpart-deleted")

        assert set(deleted) == {letter["ref"].rpartition(":")[2] for letter in letters}
        assert set(deleted) <= system.rows("erp").keys()

    def test_can_be_undone(self, system: Installation, deleted: list[str]):
        """`--use restore` makes the account again, under a new id."""
        customer = deleted[0]
        _replay(system, customer, "restore")
        accounts = {row["name"]: key for key, row in system.rows("crm").items()}
        system.pairs[customer] = accounts[system.rows("erp")[customer]["displayName"]]

        assert customer != system.pairs[customer]
        assert [] == system.letters("--ref", f"erp:customer:{customer}")

    def test_can_be_carried_out(self, system: Installation, deleted: list[str]):
        """`--use propagate` deletes the customer, too."""
        customer = deleted[1]
        _replay(system, customer, "propagate")
        del system.pairs[customer]

        assert customer not in system.rows("erp")
        assert [] == system.letters("--ref", f"erp:customer:{customer}")

    def test_can_be_left_alone(self, system: Installation, deleted: list[str]):
        """`--use uncouple` keeps the customer as it is, and no later edit makes an account of it."""
        customer = deleted[2]
        _replay(system, customer, "uncouple")
        system.set_apart(customer)
        system.erp.edit(customer, phoneNumber="+1 555 0188")
        system.wait_quiet()

        assert customer in system.rows("erp")
        assert system.rows("erp")[customer]["displayName"] not in {row["name"] for row in system.rows("crm").values()}
        assert [] == system.letters("--ref", f"erp:customer:{customer}")

    def test_leaves_the_others_alone(self, system: Installation, deleted: list[str]):
        """After all of these, both systems agree; the account that was made again follows its customer."""
        system.erp.edit(deleted[0], phoneNumber="+1 555 0189")
        system.wait_quiet()

        assert "+1 555 0189" == system.rows("crm")[system.pairs[deleted[0]]]["telephone1"]
        assert [] == disagreements(system)


class TestQuiet:
    def test_means_that_every_edit_made_before_is_applied(self, system: Installation):
        """However soon after the edit the wait begins: what it changed is on the other side, or told in a letter."""
        records = system.make_pairs(10)
        late = []
        for number in range(10):
            record, text = records[number // 2], f"quiet {number}"
            match number:
                case 4:
                    late += _not_told(system, system.make_customer(), "erp")
                case 9:
                    late += _not_told(system, system.make_account(), "crm")
                case even if even % 2 == 0:
                    system.erp.edit(record, addressLine1=text)
                    system.wait_quiet()
                    late += [] if system.rows("crm")[record]["address1_line1"] == text else [text]
                case _:
                    system.crm.edit(record, telephone1=text)
                    system.wait_quiet()
                    late += [] if system.rows("erp")[record]["phoneNumber"] == text else [text]

        assert [] == late
        assert [] == disagreements(system)


class TestEconomy:
    def test_of_requests(self, system: Installation):
        """A live edit of a coupled record that results in a write costs at most 1.15 requests of the sinks."""
        records = system.make_pairs(40)
        before = _work_done(system)
        for number in range(3):
            for at, record in enumerate(records):
                if (at + number) % 2:
                    system.erp.edit(record, phoneNumber=f"economy {number}")
                else:
                    system.crm.edit(record, address1_line1=f"economy {number}")
            system.wait_quiet()
        after = _work_done(system)
        requests, written = (now - then for now, then in zip(after, before, strict=True))

        assert written >= 100
        assert requests / written <= 1.15
        assert [] == disagreements(system)


def _automate(system: Installation, side: str, entity_set: str, field: str, values: dict[str, str]) -> None:
    """Once Drawbar has written `field`, the second application writes `values`; once."""
    part = system.connection[side]
    rule = {
        "system": side,
        "set": entity_set,
        "field": field,
        "after_app": part["client_id"],
        "by_app": part["other_app"]["client_id"],
        "values": values,
        "times": 1,
    }
    system.control("POST", "automations", [rule])


def _replay(system: Installation, record: str, use: str) -> None:
    (letter,) = (letter for letter in system.letters() if letter["ref"].endswith(record))
    system.drawbar("dead-letters", "replay", "--id", letter["id"], "--use", use, "--yes")
    system.wait_quiet()


def _not_told(system: Installation, record: str, side: str) -> list[str]:
    """Make a pair, delete one side, say whether quiet came before the letter about it, and delete the other side."""
    system.wait_quiet()
    (system.erp if side == "erp" else system.crm).delete(record)
    system.wait_quiet()
    letters = system.letters("--ref", f"erp:customer:{record}", "--code", "counterpart-deleted")
    if letters:
        _replay(system, record, "propagate")
    del system.pairs[record]
    return [] if len(letters) == 1 else [f"the delete of {side} {record}"]


def _work_done(system: Installation) -> tuple[int, int]:
    """Requests that the sinks have made, reads included, and what they have written."""
    beats = [beat for name in ("sink-erp", "sink-crm") for beat in system.status()["stages"][name]]
    return sum(beat["requests"] for beat in beats), sum(beat["counts"].get("written", 0) for beat in beats)
