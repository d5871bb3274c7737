"""`drawbar dead-letters`: what could not go on, why, and what would clear it; decide it again, or give it up.

A letter about a record is replayed by an order to its home, which decides on the latest state it knows: so a replay
never brings an older value back, and may be interrupted and repeated at any point. Only bytes that no home has seen,
because nobody could read them, are sent again as they are.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer
from msgspec.structs import replace

from drawbar.cli.orders import order_message
from drawbar.cli.pair_description import missing_label
from drawbar.cli.running import Running, age, parse_when, plural, running, say_unreadable, stamp
from drawbar.cli.shared import (
    AsJson,
    ConnectionFile,
    MappingName,
    WaitS,
    folded,
    new_app,
    print_json_line,
    say,
    utc_now,
)

if TYPE_CHECKING:
    from drawbar.cli.replayed import Fate
    from drawbar.ports import InMessage, OutMessage
    from processors.mapping import EntityMapping
    from schemas.coupling import Row
    from schemas.records import DeadLetter, Order, RecordRef

app = new_app("What could not go on, why, and what would clear it.")

BATCH = 500  # orders sent before the broker has confirmed them all
CANDIDATES = 3  # of an ambiguous match that are written out
FEWEST = 6  # characters of a letter's id that name it, when no other begins with them

State = Literal["open", "closed", "discarded", "all"]
Use = Literal["erp", "crm", "restore", "uncouple", "propagate"]
USE_IS_FOR: Mapping[str, str] = {
    "erp": "update-conflict",
    "crm": "update-conflict",
    "restore": "counterpart-deleted",
    "uncouple": "counterpart-deleted",
    "propagate": "counterpart-deleted",
}

Code = Annotated[
    Optional[str], typer.Option("--code", help="Only this error: DRW-3001 or owner-not-coupled.", show_default=False)
]
Ref = Annotated[
    Optional[str], typer.Option("--ref", help="Only this record, by id or business key.", show_default=False)
]
Since = Annotated[
    Optional[str], typer.Option("--since", help="Opened at or after: ISO time, or 10m, 2h, 3d ago.", show_default=False)
]
Until = Annotated[
    Optional[str], typer.Option("--until", help="Opened before: ISO time, or 10m, 2h, 3d ago.", show_default=False)
]
Ids = Annotated[Optional[list[str]], typer.Option("--id", help="Only this letter; may be given several times.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most this many, oldest first.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_letters(
    ctx: typer.Context,
    code: Code = None,
    mapping: MappingName = None,
    ref: Ref = None,
    since: Since = None,
    until: Until = None,
    state: Annotated[State, typer.Option("--state", help="Only letters in this state.")] = "open",
    each: Annotated[bool, typer.Option("--each", help="List single letters below their cause.")] = False,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """List dead letters by cause: one uncoupled owner with many dependants is one entry.

    Example: drawbar dead-letters list --code owner-not-coupled --since 2h
    """
    system, now = running(ctx, connection_file), utc_now()
    found = chosen(system, code=code, mapping=mapping, ref=ref, since=since, until=until, state=state, now=now)
    candidates = candidates_of(found, system)
    if as_json:
        originals = system.rows.originals(found)
        for letter in found:
            print_json_line(
                to_json(
                    letter, originals.get(letter.letter_id), system.mappings, now, candidates.get(letter.letter_id, ())
                )
            )
    elif not found:
        say(f"no {'' if state == 'all' else state + ' '}dead letters")
    else:
        groups = grouped(found)
        for group in groups:
            _print_group(group, system.mappings, now, candidates, each=each)
        more = "" if each or len(groups) == len(found) else "; --each lists them one by one"
        what = "" if state == "all" else f"{state} "
        say(
            f"{len(found)} {what}{plural(len(found), 'letter').partition(' ')[2]}, {plural(len(groups), 'cause')}{more}"
        )
    say_unreadable(system.rows)


@app.command()
def show(
    ctx: typer.Context,
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the letter, or how it begins.")],
    values: Annotated[bool, typer.Option("--values", help="Print the values of fields, too.")] = False,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Show all about one letter, the message that was set aside included.

    Example: drawbar dead-letters show 3f2a9c01
    """
    system, now = running(ctx, connection_file), utc_now()
    letter = one_letter(system.rows.letters(), letter_id)
    original = system.rows.originals([letter]).get(letter.letter_id)
    message = describe_message(original, values=values) if original is not None else None
    candidates = candidates_of([letter], system).get(letter.letter_id, ())
    if as_json:
        print_json_line({**to_json(letter, original, system.mappings, now, candidates), "message": message})
        return
    _print_letter(letter, system.mappings, now, candidates)
    if message is None:
        typer.echo("  message    no longer kept")
    else:
        _print_message(message)


@app.command()
def replay(
    ctx: typer.Context,
    code: Code = None,
    mapping: MappingName = None,
    ref: Ref = None,
    since: Since = None,
    until: Until = None,
    ids: Ids = None,
    state: Annotated[
        Literal["open", "discarded"], typer.Option("--state", help="Letters that were given up can be taken up again.")
    ] = "open",
    use: Annotated[
        Optional[Use],
        typer.Option(
            "--use",
            help="Conflict: whose values stand (erp, crm). Counterpart deleted: restore, uncouple, propagate.",
            show_default=False,
        ),
    ] = None,
    limit: Limit = 100,
    yes: Yes = False,
    wait_s: WaitS = 15,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Decide dead letters again, on the latest state of their records. Shows the plan and asks first.

    Tells of each letter whether it is closed, open again or pending after --wait-s seconds. Exit code 1 when no letter
    passes the filters, or when one is open again.

    Example: drawbar dead-letters replay --code DRW-3001 --limit 10
    """
    system, now = running(ctx, connection_file), utc_now()
    found = chosen(system, code=code, mapping=mapping, ref=ref, since=since, until=until, state=state, ids=ids, now=now)
    fit, unfit = fitting(found, use)
    if unfit and use is not None:
        say(f"left out: {plural(len(unfit), 'letter')}, because --use {use} is for {USE_IS_FOR[use]} alone")
    todo = fit[:limit]
    if not todo:
        say("nothing was replayed: no dead letter passes these filters")
        say("  do:    see what there is: drawbar dead-letters list")
        raise typer.Exit(1)
    plan = [Step(letter, "bytes" if is_about_bytes(letter) else "retry") for letter in todo]
    _agreed(plan, left=len(fit) - len(todo), yes=yes, as_json=as_json, use=use)
    from drawbar.cli.replayed import Fate

    unsent: dict[str, str] = {}
    fates: dict[str, Fate] = {}
    originals = system.rows.originals(step.letter for step in plan if step.action == "bytes")
    for letter in [step.letter for step in plan if step.action == "bytes"]:
        messages = again(letter, originals.get(letter.letter_id), system.mappings)
        if isinstance(messages, str):
            unsent[letter.letter_id] = messages
        else:
            system.rows.send_again(letter, messages)
            fates[letter.letter_id] = Fate(result="closed")
    fates |= _retried(system, [step.letter for step in plan if step.action == "retry"], use=use or "", wait_s=wait_s)
    for step in plan:
        if step.letter.letter_id in fates:
            _tell_fate(step, fates[step.letter.letter_id], as_json=as_json)
    _sum_up(list(fates.values()), wait_s=wait_s, as_json=as_json)
    for letter_id, why in unsent.items():
        say(f"not sent: {letter_id} {why}")
    if unsent or any(fate.result in ("open", "discarded") for fate in fates.values()):
        raise typer.Exit(1)


@app.command()
def discard(
    ctx: typer.Context,
    code: Code = None,
    mapping: MappingName = None,
    ref: Ref = None,
    since: Since = None,
    until: Until = None,
    ids: Ids = None,
    limit: Limit = 100,
    yes: Yes = False,
    wait_s: WaitS = 15,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Give dead letters up: what they are about is not tried again until its record changes. Asks first.

    Example: drawbar dead-letters discard --id 3f2a9c01
    """
    system, now = running(ctx, connection_file), utc_now()
    found = chosen(
        system, code=code, mapping=mapping, ref=ref, since=since, until=until, state="open", ids=ids, now=now
    )
    todo = found[:limit]
    rows = system.rows.rows({home_of(letter) for letter in todo if not is_about_bytes(letter)}) if todo else {}
    plan = [Step(letter, closing(letter, rows)) for letter in todo]
    if not _agreed(plan, left=len(found) - len(todo), yes=yes, as_json=as_json, use=None):
        return
    at_home = {step.letter.letter_id for step in plan if step.action == "close"}
    with system.rows.watch(()) as watch:
        _send_all(system, [_discarding(step, now) for step in plan])
        if as_json:
            for step in plan:
                print_json_line(_step_json(step))
        deadline = time.monotonic() + wait_s
        while at_home and (left := deadline - time.monotonic()) > 0:
            at_home -= {given_up for news in watch.take(min(left, 0.5)) if (given_up := _given_up(news))}
    if at_home:
        say(
            f"sent, not answered in {wait_s:g} s: {plural(len(at_home), 'letter')}\n"
            "  do:    see whether the stages run: drawbar status; repeating the command does no harm"
        )
        raise typer.Exit(1)
    if not as_json:
        typer.echo(f"discarded: {plural(len(plan), 'letter')}")


# --- choosing -----------------------------------------------------------------------------------------------------


def chosen(
    system: Running,
    *,
    code: str | None,
    mapping: str | None,
    ref: str | None,
    since: str | None,
    until: str | None,
    state: str,
    now: datetime,
    ids: Sequence[str] | None = None,
) -> list[DeadLetter]:
    """The letters that pass all filters, oldest first. Raises UsageError for a filter that means nothing."""
    codes = None if code is None else code_named(code)
    begin = parse_when(since, now=now) if since else None
    end = parse_when(until, now=now) if until else None
    if mapping is not None:
        _check_mapping(mapping, system)
    record_id = _id_named(ref, system) if ref else None
    letters = system.rows.letters()
    wanted = None if not ids else {one_letter(letters, text).letter_id for text in ids}
    found = [
        letter
        for letter in letters.values()
        if (state in ("all", letter.state.value))
        and codes in (None, letter.code)
        and mapping in (None, letter.mapping)
        and (record_id is None or record_id in (letter.home, letter.ref.rpartition(":")[2]))
        and (begin is None or letter.opened_at >= begin)
        and (end is None or letter.opened_at < end)
        and (wanted is None or letter.letter_id in wanted)
    ]
    return sorted(found, key=lambda letter: (letter.opened_at, letter.letter_id))


def code_named(text: str) -> str:
    """The code of an error that is named by code or slug. Raises UsageError."""
    from drawbar.rows import suggestion
    from schemas.errors import UsageError, all_errors

    names = {name: error.code for error in all_errors() for name in (error.code, error.slug)}
    code = names.get(text.upper()) or names.get(text.lower())
    if code is None:
        raise UsageError(f"no error is called {text!r}", next_step=suggestion(text.lower(), sorted(names)))
    return code


def one_letter(letters: Mapping[str, DeadLetter], text: str) -> DeadLetter:
    """The letter whose id is, or begins with, `text`. Raises UsageError."""
    from schemas.errors import UsageError

    name = text.strip().lower()
    found = [name] if name in letters else [key for key in letters if key.startswith(name) and len(name) >= FEWEST]
    if len(found) == 1:
        return letters[found[0]]
    what = "no letter has" if not found else f"{len(found)} letters have"
    raise UsageError(f"{what} the id {name!r}", next_step="drawbar dead-letters list --each --state all shows the ids")


def fitting(letters: Iterable[DeadLetter], use: str | None) -> tuple[list[DeadLetter], list[DeadLetter]]:
    """Letters that a choice is about, and those it is not: `propagate` must not reach a record by accident."""
    fit: list[DeadLetter] = []
    unfit: list[DeadLetter] = []
    for letter in letters:
        (fit if use is None or USE_IS_FOR[use] == letter.slug else unfit).append(letter)
    return fit, unfit


def is_about_bytes(letter: DeadLetter) -> bool:
    from drawbar.rows import BYTES_CODES

    return letter.code in BYTES_CODES


def closing(letter: DeadLetter, rows: Mapping[str, Row]) -> str:
    """Who gives a letter up: its home, which holds what it is about (`close`), or nobody but us (`index`)."""
    from drawbar.rows import holds_letter

    return "close" if holds_letter(rows.get(home_of(letter)), letter.letter_id) else "index"


def home_of(letter: DeadLetter) -> str:
    from schemas.records import home_key

    return home_key(letter.mapping, letter.home)


def _check_mapping(name: str, system: Running) -> None:
    """A mapping that is gone may still have letters; one that never was is a typing error."""
    from drawbar.rows import suggestion
    from schemas.errors import UsageError

    if name not in system.mappings and all(letter.mapping != name for letter in system.rows.letters().values()):
        raise UsageError(f"no mapping is called {name!r}", next_step=suggestion(name, list(system.mappings)))


def _id_named(text: str, system: Running) -> str:
    from drawbar.rows import find_one, parse_named

    named = parse_named(text)
    if named.id:
        return named.id
    return find_one(named, system.rows.rows(), system.mappings.values())[0].ref.id


# --- grouping and printing ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Letters that one thing would clear."""

    code: str
    slug: str
    missing: str
    letters: tuple[DeadLetter, ...]  # oldest first

    @property
    def mappings(self) -> tuple[str, ...]:
        return tuple(sorted({letter.mapping for letter in self.letters if letter.mapping}))


def grouped(letters: Iterable[DeadLetter]) -> list[Group]:
    """By code and cause; the cause with the most letters first."""
    found: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        found.setdefault((letter.code, letter.cause), []).append(letter)
    groups = [
        Group(code=code, slug=of[0].slug, missing=of[0].missing, letters=tuple(of)) for (code, _), of in found.items()
    ]
    return sorted(groups, key=lambda group: (-len(group.letters), group.letters[0].opened_at))


def candidates_of(letters: Iterable[DeadLetter], system: Running) -> dict[str, tuple[str, ...]]:
    """The records that might be meant, by id of an ambiguous letter. The letter names the first; its home has all."""
    from schemas.errors import AmbiguousMatch

    ambiguous = [letter for letter in letters if letter.code == AmbiguousMatch.code]
    rows = system.rows.rows({home_of(letter) for letter in ambiguous}) if ambiguous else {}
    found: dict[str, tuple[str, ...]] = {}
    for letter in ambiguous:
        row = rows.get(home_of(letter))
        hold = row.pair.holds.get(letter.direction) if row is not None and row.pair is not None else None
        is_this = hold is not None and hold.letter_id == letter.letter_id
        missing = hold.missing if hold is not None and is_this else (letter.missing,)
        found[letter.letter_id] = tuple(ref for ref in missing if ref)
    return found


def next_step(letter: DeadLetter, mappings: Mapping[str, EntityMapping], candidates: Sequence[str] = ()) -> str:
    """What would clear the letter, with its own ids in it; what is left to fill in stands as ID.

    `candidates`: of an ambiguous match, as `candidates_of` gives them.
    """
    from schemas.errors import AmbiguousMatch, OwnerNotCoupled, ReferenceNotCoupled
    from schemas.records import RecordRef

    if letter.code == AmbiguousMatch.code and letter.ref and candidates:
        shown = "; or ".join(_couple(letter.ref, candidate) for candidate in candidates[:CANDIDATES])
        return f"{shown}; drawbar explain {letter.ref} lists all that match"
    text = letter.next_step.replace("--id ID", f"--id {letter.letter_id}")
    if letter.code not in (OwnerNotCoupled.code, ReferenceNotCoupled.code):
        return text
    bearer = _bearer(letter.missing, mappings)
    if bearer:
        return bearer
    try:
        missing = RecordRef.parse(letter.missing)
    except ValueError:
        return text
    if missing.entity == "bcbi_company":
        return (
            f"make the row of this company in the CRM: bcbi_company with {missing.id} in bcbi_externalid, and an "
            "owning team; what waits for it then goes on by itself"
        )
    other = _counterpart(missing, mappings)
    return f"{_couple(letter.missing, other)}; what waits for it then goes on by itself" if other else text


def _couple(one: str, other: str) -> str:
    """The command that couples two records, the ERP's first."""
    erp, crm = (one, other) if one.startswith("erp:") else (other, one)
    return f"drawbar couplings couple {erp} {crm}"


def _counterpart(ref: RecordRef, mappings: Mapping[str, EntityMapping]) -> str:
    """What a record of this entity is coupled with, by its business key where it has one that people know; blank when
    no mapping pairs it.
    """
    other = ref.system.other
    for mapping in mappings.values():
        if mapping.role == "pair" and mapping.entity_in(ref.system) == ref.entity:
            key = mapping.key_in(other)
            return f"{other}:{mapping.entity_in(other)}:{f'{key}=…' if key else 'ID'}"
    return ""


def _bearer(missing: str, mappings: Mapping[str, EntityMapping]) -> str:
    """What to do about a record that is known by a value it bears, `customer-account.companyContactNumber:CT1`."""
    field, _, value = missing.partition(":")
    name, _, column = field.partition(".")
    mapping = mappings.get(name)
    if mapping is None or not column or not value:
        return ""
    return (
        f"couple the {mapping.erp} with {value} in {column}: drawbar explain erp:{mapping.erp}:{column}={value} tells "
        "why it is not; what waits for it then goes on by itself"
    )


def to_json(
    letter: DeadLetter,
    original: InMessage | None,
    mappings: Mapping[str, EntityMapping],
    now: datetime,
    candidates: Sequence[str],
) -> dict[str, Any]:
    """`topic`, `partition` and `offset` say which message failed; `kept_at` says where its bytes are kept."""
    from drawbar.rows import header_of
    from schemas.topics import DEAD_LETTERS

    at = [header_of(original, name) if original is not None else "" for name in ("partition", "offset")]
    partition, offset = (int(text) if text.lstrip("-").isdecimal() else -1 for text in at)
    return {
        "id": letter.letter_id,
        "code": letter.code,
        "slug": letter.slug,
        "mapping": letter.mapping,
        "ref": letter.ref,
        "direction": letter.direction,
        "missing": letter.missing,
        "cause": letter.cause,
        "detail": letter.detail,
        "fields": list(letter.fields),
        "opened_at": letter.opened_at,
        "age_s": round(max(0.0, (now - letter.opened_at).total_seconds()), 1),
        "topic": letter.topic,
        "partition": partition,
        "offset": offset,
        "kept_at": f"{DEAD_LETTERS}[{letter.partition}]@{letter.offset}" if letter.offset >= 0 else "",
        "state": letter.state.value,
        "changed_at": letter.changed_at,
        "changed_by": letter.changed_by,
        "candidates": list(candidates),
        "next_step": next_step(letter, mappings, candidates),
    }


def _print_group(
    group: Group,
    mappings: Mapping[str, EntityMapping],
    now: datetime,
    candidates: Mapping[str, tuple[str, ...]],
    *,
    each: bool,
) -> None:
    """A few lines that fit the terminal; what is to be typed stands on a line of its own, however long it is."""
    first = group.letters[0]
    found = candidates.get(first.letter_id, ())
    count = f"{len(group.letters)} x" if len(group.letters) > 1 else first.letter_id[:8]
    where = ", ".join(group.mappings) or first.topic
    for number, text in enumerate(
        folded(f"{group.code} {group.slug}   {count}   {where}   {_oldest(group, now)}", indent=2)
    ):
        typer.echo(f"{'  ' if number else ''}{text}")
    _say(missing_label(group.slug), "; ".join(found[: CANDIDATES + 1]) or group.missing, width=8)
    if not group.missing:
        _say("detail", first.detail, width=8)
    if len(group.letters) == 1:
        _say("record", first.ref, width=8)
        _say("fields", ", ".join(first.fields), width=8)
    _say("do", next_step(first, mappings, found), width=8)
    if each and len(group.letters) > 1:
        for letter in group.letters:
            typer.echo(f"    {letter.letter_id[:8]}  {age(letter.opened_at, now):>5}  {letter.ref or letter.detail}")
    typer.echo("")


def _say(label: str, text: str, *, width: int) -> None:
    """The parts of a text, each on lines of its own; one that holds a command stays whole, so that it can be copied."""
    lines = [
        line
        for part in text.split("; ")
        for line in ([part] if part.removeprefix("or ").startswith("drawbar ") else folded(part, indent=width + 3))
    ]
    for number, line in enumerate(lines):
        typer.echo(f"  {'' if number else label:<{width}} {line}")


def _oldest(group: Group, now: datetime) -> str:
    states = {letter.state.value for letter in group.letters} - {"open"}
    text = f"{'oldest ' if len(group.letters) > 1 else ''}{age(group.letters[0].opened_at, now)}"
    return f"{text}   {', '.join(sorted(states))}" if states else text


def _print_letter(
    letter: DeadLetter, mappings: Mapping[str, EntityMapping], now: datetime, candidates: Sequence[str]
) -> None:
    typer.echo(f"{letter.code} {letter.slug}   {letter.letter_id}")
    changed = f", since {stamp(letter.changed_at)}" if letter.changed_at != letter.opened_at else ""
    by = f" by {letter.changed_by}" if letter.changed_by else ""
    lines = {
        "state": f"{letter.state.value}{by}{changed}",
        "opened": f"{stamp(letter.opened_at)} ({age(letter.opened_at, now)} ago)",
        "mapping": letter.mapping,
        "record": letter.ref,
        "direction": letter.direction,
        missing_label(letter.slug): "; ".join(candidates) or letter.missing,
        "detail": letter.detail,
        "fields": ", ".join(letter.fields),
        "do": next_step(letter, mappings, candidates) if letter.state.value == "open" else "",
    }
    for name, text in lines.items():
        _say(name, text, width=10)


def _print_message(message: Mapping[str, Any]) -> None:
    typer.echo(f"  message    {message['size']} bytes, {message['kind']}, kept since {message['kept_since']}")
    typer.echo(f"    key      {message['key']}")
    for name, text in message["headers"].items():
        typer.echo(f"    {name}: {text}")
    for name, value in (message.get("content") or {}).items():
        typer.echo(f"    {name:<12} {value if not isinstance(value, dict) else ''}")
        if isinstance(value, dict):
            for field, held in value.items():
                typer.echo(f"      {field} = {held}")


def describe_message(message: InMessage, *, values: bool) -> dict[str, Any]:
    """What the bytes of a letter are, as far as anybody can read them. Values of fields only when asked for."""
    kind, content = _content(message.value, values=values)
    return {
        "kind": kind,
        "size": len(message.value or b""),
        "key": message.key.decode(errors="backslashreplace"),
        "headers": {name: value.decode(errors="backslashreplace") for name, value in message.headers},
        "kept_since": datetime.fromtimestamp(message.timestamp_ms / 1000, tz=utc_now().tzinfo).isoformat(
            timespec="seconds"
        ),
        "content": content,
    }


def _content(value: bytes | None, *, values: bool) -> tuple[str, dict[str, Any] | None]:
    from schemas.codec import decode
    from schemas.errors import Undecodable
    from schemas.records import ChangeEvent, Command, Outcome, Work

    if value is None:
        return "a tombstone", None
    for cls in (Work, Command, ChangeEvent, Outcome):
        try:
            record = decode(cls, value)
        except Undecodable:
            continue
        part = record
        if isinstance(record, Work):
            part = record.change or record.outcome or record.order or record
        return type(part).__name__, _facts(part, values=values)
    return "unreadable", None


def _facts(part: object, *, values: bool) -> dict[str, Any]:
    """The scalars of a record, and of maps of fields the names; their values only when asked for."""
    from schemas.codec import to_datum

    if type(part).__name__ == "Work":
        return {}
    facts: dict[str, Any] = {}
    for name, value in to_datum(part).items():
        if value in (None, "", [], {}):
            continue
        if name in ("after", "values", "seen"):
            facts[name] = value if values else ", ".join(sorted(value))
        elif name in ("target", "ref"):
            facts[name] = f"{value['system']}:{value['entity']}:{value['id']}"
        elif isinstance(value, (str, int, bool, datetime)):
            facts[name] = str(value) if isinstance(value, datetime) else value
    return facts


# --- sending ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One letter and what is done about it: `retry`, `bytes`, `close`, `index`."""

    letter: DeadLetter
    action: str


WHAT_IS_DONE = {
    "retry": "decided again, on the latest state of the record",
    "bytes": "read again, bytes untouched",
    "close": "given up; the record is not tried again until it changes",
    "index": "given up",
}


def again(
    letter: DeadLetter, original: InMessage | None, mappings: Mapping[str, EntityMapping]
) -> Sequence[OutMessage] | str:
    """What is sent for bytes that no home has seen, or why nothing is.

    They go where they came from, untouched. A topic of changes has capture as its only writer, and an old change in it
    would stand there as the newest: what such bytes mean, if they can be read now, goes to the homes directly.
    """
    from drawbar.letters import PREFIX
    from drawbar.ports import OutMessage
    from drawbar.traces import trace_headers
    from processors.route import changes_topics, routes_of, to_works
    from schemas.codec import encode
    from schemas.errors import Undecodable
    from schemas.topics import PAIRS_WORK

    if original is None:
        return "is no longer kept"
    routes = routes_of(mappings.values())
    if letter.topic not in changes_topics(routes):
        headers = tuple(header for header in original.headers if not header[0].startswith(PREFIX))
        return [OutMessage(topic=letter.topic, key=original.key, value=original.value, headers=headers)]
    try:
        works = to_works(original.value, routes)
    except Undecodable:
        return "can still not be read, and stays open"
    traced = trace_headers(original.headers)
    return [OutMessage(topic=PAIRS_WORK, key=work.key.encode(), value=encode(work), headers=traced) for work in works]


def _retried(system: Running, letters: Sequence[DeadLetter], *, use: str, wait_s: float) -> dict[str, Fate]:
    """Ask the home of each letter to decide again, and follow them for up to `wait_s` seconds. Fates by letter id."""
    from drawbar.cli.replayed import Fate, Replayed

    orders = [(letter, retry_order(letter, use=use)) for letter in letters]
    messages = [order_message(order, mapping=letter.mapping, home=letter.home) for letter, order in orders]
    replayed = Replayed({order.order_id: letter for letter, order in orders})
    if not wait_s or not orders:
        _send_all(system, messages)
        return {letter.letter_id: Fate(result="sent") for letter in letters}
    with system.rows.watch(replayed.homes) as watch:
        _send_all(system, messages)
        deadline = time.monotonic() + wait_s
        while not replayed.settled and (left := deadline - time.monotonic()) > 0:
            replayed.hear(watch.take(min(left, 0.5)))
    return replayed.fates()


def retry_order(letter: DeadLetter, *, use: str) -> Order:
    from schemas.records import Order, OrderKind

    return Order(order_id=str(uuid.uuid4()), kind=OrderKind.RETRY, by="operator", use=use, letter_id=letter.letter_id)


def _discarding(step: Step, now: datetime) -> OutMessage:
    from drawbar.letters import index_message
    from schemas.records import LetterState, Order, OrderKind

    letter = step.letter
    if step.action == "close":
        order = Order(order_id=str(uuid.uuid4()), kind=OrderKind.CLOSE, by="operator", letter_id=letter.letter_id)
        return order_message(order, mapping=letter.mapping, home=letter.home)
    given_up = replace(letter, state=LetterState.DISCARDED, changed_at=now, changed_by="operator")
    return index_message(given_up, partition=letter.partition, offset=letter.offset)


def _given_up(news: object) -> str:
    from schemas.records import DeadLetter, LetterState

    return news.letter_id if isinstance(news, DeadLetter) and news.state is not LetterState.OPEN else ""


def _agreed(plan: Sequence[Step], *, left: int, yes: bool, as_json: bool, use: str | None) -> bool:
    """Show the plan and ask. False when there is nothing to do."""
    if not plan:
        say("no dead letter passes these filters: nothing to do")
        return False
    for action, done in WHAT_IS_DONE.items():
        letters = [step.letter for step in plan if step.action == action]
        if not letters:
            continue
        say(f"{plural(len(letters), 'letter')} will be {done}" + (f", with --use {use}" if use else ""))
        for group in grouped(letters)[:10]:
            what = group.missing or group.letters[0].ref or group.letters[0].detail
            begin, *rest = folded(f"{len(group.letters):>5} x {group.code} {group.slug} {what}", indent=2)
            say("\n".join([f"  {begin}", *(f"          {text}" for text in rest)]))
        if len(grouped(letters)) > 10:
            say(f"        and {len(grouped(letters)) - 10} causes more")
    if left:
        say(f"{plural(left, 'letter')} more pass the filters; --limit sets how many are taken")
    if yes:
        return True
    if as_json and not typer.get_text_stream("stdin").isatty():
        from schemas.errors import UsageError

        raise UsageError("nothing was sent: nobody is there to ask", next_step="say --yes")
    typer.confirm("Go on?", abort=True, err=True)
    return True


def _send_all(system: Running, messages: Sequence[OutMessage]) -> None:
    for start in range(0, len(messages), BATCH):
        system.rows.send(messages[start : start + BATCH])


def _step_json(step: Step) -> dict[str, Any]:
    letter = step.letter
    return {
        "id": letter.letter_id,
        "code": letter.code,
        "mapping": letter.mapping,
        "ref": letter.ref,
        "action": step.action,
    }


IN_WORDS = {
    "closed": "closed",
    "open": "open again",
    "discarded": "still given up",
    "pending": "pending",
    "sent": "sent",
}


def _tell_fate(step: Step, fate: Fate, *, as_json: bool) -> None:
    letter, stopped = step.letter, fate.result in ("open", "discarded")
    if as_json:
        now = {"letter_now": fate.letter_id, "code_now": fate.code} if stopped else {}
        print_json_line({**_step_json(step), "result": fate.result, **now})
        return
    typer.echo(f"  {IN_WORDS[fate.result]:<14}  {letter.letter_id[:8]}  {letter.ref or letter.detail}")
    if stopped:
        other = f", letter {fate.letter_id[:8]}" if fate.letter_id not in ("", letter.letter_id) else ""
        typer.echo(f"  {'':<14}  {'':<8}  {fate.code} {fate.slug}{other}")


def _sum_up(fates: Sequence[Fate], *, wait_s: float, as_json: bool) -> None:
    if not as_json:
        results = [fate.result for fate in fates]
        typer.echo(", ".join(f"{results.count(name)} {text}" for name, text in IN_WORDS.items() if name in results))
    if any(fate.result == "pending" for fate in fates):
        say(
            f"pending: not settled within {wait_s:g} s\n"
            "  do:    see what is under way: drawbar explain REF; whether the stages run: drawbar status"
        )
    if any(fate.result == "open" for fate in fates):
        say("open again: drawbar dead-letters list says what would clear them")
