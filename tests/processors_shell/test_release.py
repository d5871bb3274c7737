"""The index of what rows wait for, as a table of times: who is asked, and when."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from processors.brakes import Brakes
from processors.release import Figures, Flight, Standing, Waiting, is_there, may_wait, standing_of
from processors.view import ReferenceView
from schemas.codec import to_json
from schemas.coupling import Hold, Home, KeptBack, Pair, PairState, Row, Side
from schemas.records import CommandKind, Order, OrderKind, System
from tests.processors_shell.given import MAPPINGS, NOON, an_id


def after(seconds: float):
    return NOON + timedelta(seconds=seconds)


def a_flight(sent_s: float, *, command_id: str = "c1", sends: int = 1, partition: int = 0) -> Standing:
    return Standing(flight=Flight(System.CRM, partition, after(sent_s), sends, command_id, after(0)))


FLIGHTS = st.builds(
    Flight,
    system=st.sampled_from(System),
    partition=st.integers(0, 1),
    sent_at=st.integers(-5, 5).map(after),
    sends=st.integers(1, 3),
    command_id=st.sampled_from(["c1", "c2"]),
    issued_at=st.integers(-5, 5).map(after),
)
STANDINGS = st.builds(
    Standing,
    names=st.frozensets(st.sampled_from(["company", "x", "~y"])),
    flight=st.none() | FLIGHTS,
    deferred=st.booleans(),
    kept_back=st.frozensets(st.sampled_from(["to_crm", "to_erp"])),
    company=st.booleans(),
    claiming=st.booleans(),
)


def a_row(**members) -> Row:
    return Row(mapping="salesperson-systemuser", id=an_id(1, "salesperson"), **members)


class TestUnanswered:
    def test_the_oldest_command_is_sent_again_after_the_timeout(self):
        waiting = Waiting(command_timeout_s=60)
        waiting.put(b"a", a_flight(0), now=NOON)

        assert [] == list(waiting.unanswered(after(59)))
        assert [b"a"] == list(waiting.unanswered(after(61)))

    def test_a_command_behind_others_waits_its_turn(self):
        """A first synchronisation queues thousands of commands; none is repeated while those before it are answered."""
        waiting = Waiting(command_timeout_s=60)
        waiting.put(b"a", a_flight(0), now=NOON)
        waiting.put(b"b", a_flight(1, command_id="c2"), now=NOON)

        assert [b"a"] == list(waiting.unanswered(after(100)))

    def test_a_command_that_a_later_one_overtook_is_sent_again(self):
        waiting = Waiting(command_timeout_s=60)
        for number, key in enumerate((b"a", b"b", b"c")):
            waiting.put(key, a_flight(number, command_id=key.decode()), now=NOON)
        waiting.put(b"c", Standing(), now=after(3))

        assert [b"a", b"b"] == list(waiting.unanswered(after(100)))

    def test_each_repetition_waits_twice_as_long(self):
        waiting = Waiting(command_timeout_s=60)
        waiting.put(b"a", a_flight(0), now=NOON)
        waiting.put(b"a", a_flight(60, sends=2), now=after(60))

        assert [] == list(waiting.unanswered(after(179)))
        assert [b"a"] == list(waiting.unanswered(after(181)))


class TestFigures:
    def test_tell_since_when_a_command_is_not_answered(self):
        """One that had to be sent again is, from when it was first issued on; the others wait their turn."""
        waiting = Waiting(command_timeout_s=60)
        waiting.put(b"a", a_flight(0), now=NOON)
        waiting.put(b"b", a_flight(61, sends=2, command_id="c2"), now=NOON)

        figures = waiting.figures(after(90))
        assert (2, 1, after(0)) == (figures.in_flight, figures.unanswered, figures.unanswered_since)


class TestStuck:
    def test_a_deferred_order_is_looked_at_after_a_minute(self):
        waiting = Waiting(command_timeout_s=60)
        waiting.put(b"a", Standing(deferred=True), now=NOON)

        assert [] == list(waiting.stuck(after(59), company_known=True, brakes=Brakes()))
        assert [(b"a", "timeout")] == list(waiting.stuck(after(61), company_known=True, brakes=Brakes()))

    def test_an_unknown_company_becomes_a_letter_after_half_a_minute(self):
        waiting = Waiting(command_timeout_s=60)
        waiting.put(b"a", Standing(names=frozenset({"company"}), company=True), now=NOON)

        assert [] == list(waiting.stuck(after(29), company_known=False, brakes=Brakes()))
        assert [(b"a", "company-unknown")] == list(waiting.stuck(after(31), company_known=False, brakes=Brakes()))
        assert [] == list(waiting.stuck(after(31), company_known=True, brakes=Brakes()))

    def test_what_was_only_observed_is_decided_once_drawbar_writes(self):
        waiting = Waiting(command_timeout_s=60)
        waiting.put(b"customer-account:a", Standing(kept_back=frozenset({"to_crm"})), now=NOON)

        assert [(b"customer-account:a", "release")] == list(
            waiting.stuck(after(1), company_known=True, brakes=Brakes())
        )
        assert [] == list(waiting.stuck(after(1), company_known=True, brakes=Brakes(observing=True)))


class TestWaiting:
    def test_a_row_is_found_by_what_it_misses_until_it_moves(self):
        waiting = Waiting(command_timeout_s=60)
        waiting.put(b"a", Standing(names=frozenset({"x", "y"})), now=NOON)
        waiting.put(b"a", Standing(names=frozenset({"y"})), now=NOON)

        assert ((), (b"a",)) == (waiting.waiters("x"), waiting.waiters("y"))
        waiting.put(b"a", Standing(), now=NOON)
        assert () == waiting.names()

    @given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), STANDINGS, st.integers(0, 3)), max_size=40))
    def test_figures_are_those_of_all_rows_whatever_the_way_there(self, steps: list[tuple[bytes, Standing, int]]):
        """They are kept by each step, since thousands of commands may be under way; here all rows are counted."""
        waiting, rows, now = Waiting(command_timeout_s=60), dict[bytes, Standing](), NOON
        for key, standing, passed_s in steps:
            now += timedelta(seconds=passed_s)
            waiting.put(key, standing, now=now)
            rows[key] = standing

            flights = [row.flight for row in rows.values() if row.flight is not None]
            resent = [flight.issued_at for flight in flights if flight.sends > 1]
            oldest = min((flight.sent_at for flight in flights), default=now)
            assert waiting.figures(now) == Figures(
                in_flight=len(flights),
                claiming=sum(row.claiming for row in rows.values()),
                deferred=sum(row.deferred for row in rows.values()),
                waiting=sum(any(not name.startswith("~") for name in row.names) for row in rows.values()),
                kept_back=sum(bool(row.kept_back) for row in rows.values()),
                oldest_in_flight_s=(now - oldest).total_seconds(),
                unanswered=len(resent),
                unanswered_since=min(resent, default=None),
            )
            later = now + timedelta(seconds=100)
            assert {key for key, row in rows.items() if row.deferred or row.company or row.kept_back} == {
                key for key, _ in waiting.stuck(later, company_known=False, brakes=Brakes())
            }

    def test_forgets_commands_that_were_answered(self):
        """A command that nobody answers does not keep all that came and went since."""
        waiting = Waiting(command_timeout_s=3600)
        waiting.put(b"stays", a_flight(0), now=NOON)
        for number in range(5000):
            waiting.put(b"goes", a_flight(number), now=NOON)
            waiting.put(b"goes", Standing(), now=NOON)

        assert len(waiting._by_age) < 1100
        assert 1 == waiting.figures(NOON).in_flight

    def test_the_quick_look_at_a_text_misses_no_row(self):
        """A row that waits is never taken for one at rest by its text alone."""
        hold = Hold(code="DRW-3001", slug="owner-not-coupled", order=1, since=NOON, letter_id="l", missing=("x",))
        order = Order(order_id="o", kind=OrderKind.COUPLE)
        waits = [
            a_row(deferred=(order,)),
            a_row(pair=Pair(holds={"to_crm": hold})),
            a_row(pair=Pair(soft_missing=("company",))),
            a_row(pair=Pair(kept_back={"to_crm": KeptBack(since=NOON, kind=CommandKind.UPDATE)})),
            a_row(pair=Pair(state=PairState.CLAIMING)),
        ]
        rests = [a_row(pair=Pair()), a_row(home=Home(belongs_to="e"))]

        for row in waits:
            assert standing_of(row, 0) != Standing()
            assert may_wait(to_json(row))
        for row in rests:
            assert standing_of(row, 0) == Standing()
            assert not may_wait(to_json(row))


class TestIsThere:
    def test_a_coupled_record_and_a_known_key_are_there(self):
        view = ReferenceView(MAPPINGS.values(), company_id="")
        seller, user = an_id(1, "salesperson"), an_id(1, "systemuser")
        erp = Side(id=seller, version="1", order=1, modified_at=NOON, state={"code": "JR"})
        crm = Side(id=user, version="1", order=1, modified_at=NOON, state={"internalemailaddress": "jr@example.com"})
        single = a_row(pair=Pair(erp=erp))
        view.apply(single)

        def there(name: str) -> bool:
            return is_there(name, view, MAPPINGS)

        assert (True, False) == (there("salesperson-systemuser:JR"), there(f"erp:salesperson:{seller}"))
        view.apply(a_row(pair=Pair(erp=erp, crm=crm, state=PairState.COUPLED)))
        assert there(f"erp:salesperson:{seller}")
        assert there(f"crm:systemuser:{user}")
        assert not there("option:payment-term:X")
        assert not there("company")
