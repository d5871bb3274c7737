"""Rows in memory that live: what is sent to a home is decided by the real core, and each command is carried out."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from drawbar.ports import OutMessage
from drawbar.rows import Gone
from drawbar.settings import Settings
from processors.brakes import Brakes
from processors.coupling import Fingerprints
from processors.mapping import EntityMapping
from processors.react import World, react
from processors.view import ReferenceView
from schemas.codec import decode
from schemas.coupling import Row
from schemas.records import Command, CommandKind, Observed, Outcome, OutcomeStatus, Value, Work, derived_id, home_key
from tests.cli.rows_fake import CUSTOMERS, NOW, PEOPLE, FakeRows, a_row, a_side, shipped

EMAILS = ("jane@contoso.com", "pete@contoso.com", "anna@contoso.com")


@dataclass
class LivingRows(FakeRows):
    """`refuses`: ids of records that the target rejects; `dies_after`: so many orders are taken, the rest are lost."""

    mappings: dict[str, EntityMapping] = field(default_factory=lambda: dict(shipped()))
    refuses: frozenset[str] = frozenset()
    observe: bool = False
    commands: list[Command] = field(default_factory=list)

    def send(self, messages: Sequence[OutMessage]) -> None:
        prints = Fingerprints.of_key(Settings().fingerprint_key.get_secret_value())
        view = ReferenceView(self.mappings.values(), company_id="")
        rows = {home_key(row.mapping, row.id): row for row in self.known}
        for row in rows.values():
            view.apply(row)
        world = World(mappings=self.mappings, view=view, prints=prints, brakes=Brakes(observing=self.observe))
        self.sent += messages
        todo = deque(decode(Work, message.value) for message in messages)
        while todo:
            work = todo.popleft()
            step = react(work, rows.get(work.key), world, now=NOW)
            if step.row is None:
                rows.pop(work.key, None)
            else:
                rows[work.key] = step.row
            view.apply(step.row or Row(mapping=work.mapping, id=work.home))
            self.news += [step.row if step.row is not None else Gone(work.key), *step.lines, *step.letters]
            todo.extend(step.works)
            if step.command is not None:
                todo.append(self._carried_out(step.command))
        self.known = list(rows.values())

    def _carried_out(self, command: Command) -> Work:
        self.commands.append(command)
        status, observed = OutcomeStatus.WRITTEN, None
        if command.kind is CommandKind.MATCH:
            status = OutcomeStatus.MATCHED
        elif command.target.id in self.refuses:
            status = OutcomeStatus.REJECTED
        else:
            order = 100 + len(self.commands)
            state = {**command.seen, **command.values}
            observed = Observed(id=command.target.id, version=f'W/"{order}"', order=order, modified_at=NOW, state=state)
        outcome = Outcome(
            command_id=command.command_id,
            mapping=command.mapping,
            home=command.home,
            status=status,
            target=command.target,
            observed=observed,
            code="DRW-4001" if status is OutcomeStatus.REJECTED else "",
            requests=1,
            at=NOW,
        )
        message_id = derived_id("outcome", command.command_id)
        return Work(message_id=message_id, mapping=command.mapping, home=command.home, outcome=outcome)


def a_person(number: int, **state: Value) -> Row:
    """A salesperson on its own."""
    side = a_side(f"5a1e5000-0000-4000-8000-00000000001{number}", code=f"P{number}", email=EMAILS[number])
    return a_row(PEOPLE, erp=replace(side, state={**side.state, "displayName": "", "phoneNo": None, **state}))


def its_user(number: int, **state: Value) -> Row:
    """The CRM user with the same e-mail address, on its own."""
    side = a_side(f"00005e70-0000-4000-8000-00000000001{number}", internalemailaddress=EMAILS[number].upper())
    flags: dict[str, Any] = {"isdisabled": False, "islicensed": True, "isintegrationuser": False}
    return a_row(
        PEOPLE, crm=replace(side, state={**side.state, "fullname": "Jane", "mobilephone": None, **flags, **state})
    )


def a_small_customer(number: int) -> Row:
    """A customer on its own, of a mapping without references."""
    side = a_side(f"c0570500-0000-4000-8000-00000000001{number}", displayName=f"Works {number}")
    return a_row(CUSTOMERS, erp=side)
