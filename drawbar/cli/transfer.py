"""`drawbar couplings export | import`: pairs in a file that another installation can read.

One JSON object a line: a header, then the pairs, sorted. A file holds ids and business keys of records, nothing else of
them. Importing couples each pair as a person would, in the order of claims; nothing of it is remembered outside the
rows, so that an import that was killed is simply repeated.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from drawbar.cli.couplings import pair_mappings
from drawbar.cli.orders import order_message
from drawbar.cli.running import Running, plural, running, say_unreadable
from drawbar.cli.shared import (
    AsJson,
    ConnectionFile,
    MappingName,
    open_settings,
    print_json_line,
    print_table,
    say,
    utc_now,
)
from schemas.errors import UsageError

if TYPE_CHECKING:
    from processors.mapping import EntityMapping
    from schemas.coupling import Row, Side

FORMAT = "drawbar-couplings"
VERSION = 1
CHUNK = 200  # orders sent at once
LOOK_EVERY_S = 1.0

Use = Literal["agree", "erp", "crm"]


@dataclass(frozen=True, slots=True, order=True)
class PairOf:
    """One line of the file, as far as it says what is coupled."""

    mapping: str
    erp_id: str
    crm_id: str


def register(couplings: typer.Typer) -> None:
    couplings.command("export")(export)
    couplings.command("import")(import_pairs)


# --- export -------------------------------------------------------------------------------------------------------


def export(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; only its owner can read it.")],
    mapping: MappingName = None,
    connection_file: ConnectionFile = None,
) -> None:
    """Write all coupled pairs to a file: ids and business keys, no other data.

    Example: drawbar couplings export couplings.jsonl
    """
    system = running(ctx, connection_file)
    known = pair_mappings(system.mappings, mapping)
    company = open_settings(connection_file).erp.company_id
    lines = pairs_of(system.rows.rows().values(), known)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "company_id": company,
        "systems": ["erp", "crm"],
        "mappings": sorted(known),
        "at": utc_now().isoformat(),
        "pairs": len(lines),
    }
    write_private(file, [header, *lines])
    say(f"{plural(len(lines), 'pair')} written to {file}")
    say_unreadable(system.rows)


def pairs_of(rows: Iterable[Row], mappings: Mapping[str, EntityMapping]) -> list[dict[str, Any]]:
    """The lines of a file: what is coupled, sorted by mapping and ids."""
    from schemas.coupling import PairState
    from schemas.records import System

    found = []
    for row in rows:
        pair, mapping = row.pair, mappings.get(row.mapping)
        if pair is None or mapping is None or pair.state is not PairState.COUPLED or not pair.erp or not pair.crm:
            continue
        found.append(
            {
                "mapping": row.mapping,
                "erp_id": pair.erp.id,
                "crm_id": pair.crm.id,
                "state": pair.state.value,
                "erp_key": _key(pair.erp, mapping.key_in(System.ERP)),
                "crm_key": _key(pair.crm, mapping.key_in(System.CRM)),
                "coupled_at": pair.coupled_at.isoformat() if pair.coupled_at is not None else None,
            }
        )
    return sorted(found, key=lambda line: (str(line["mapping"]), str(line["erp_id"]), str(line["crm_id"])))


def _key(side: Side, field: str | None) -> str | None:
    value = side.state.get(field) if field else None
    return str(value) if value is not None else None


def write_private(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Whole or not at all, readable by its owner only."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
            out.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        fresh.replace(file)
    except OSError as fault:
        raise UsageError(f"the file cannot be written: {fault.strerror}", where=str(file)) from fault


# --- import -------------------------------------------------------------------------------------------------------


def import_pairs(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File written by `couplings export`.")],
    preview: Annotated[bool, typer.Option("--preview", help="Only say what would be coupled.")] = False,
    use: Annotated[
        Use,
        typer.Option("--use", help="What stands at first; agree: both as they are, nothing is written."),
    ] = "agree",
    wait_s: Annotated[float, typer.Option("--wait-s", min=1, help="Seconds without progress after which to end.")] = 30,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Couple the pairs of a file. What is coupled already is passed over, so it can be repeated at any time.

    Exit code 1 when a pair is held by another one, waits for capture, or was not coupled in time.

    Example: drawbar couplings import couplings.jsonl --preview
    """
    system = running(ctx, connection_file)
    pairs = read_pairs(file, system.mappings, company_id=open_settings(connection_file).erp.company_id)
    rows = system.rows.rows()
    standing = {pair: standing_of(pair, rows) for pair in pairs}
    due = [pair for pair in pairs if standing[pair] == "due"]
    if not preview and due:
        _couple(system, due, use=use, wait_s=wait_s)
        rows = system.rows.rows()
        standing = {pair: standing_of(pair, rows) for pair in pairs}
    _tell(standing, preview=preview, as_json=as_json)
    if any(what not in ("coupled", "due") or (what == "due" and not preview) for what in standing.values()):
        raise typer.Exit(1)


def read_pairs(file: Path, mappings: Mapping[str, EntityMapping], *, company_id: str) -> list[PairOf]:
    """The pairs of a file. Raises UsageError naming the line that cannot be used."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise UsageError("the file cannot be read", where=str(file)) from fault
    header = _object(file, 1, lines[0] if lines else "")
    if header.get("format") != FORMAT:
        raise UsageError("this is no file of couplings", where=f"{file}, line 1")
    if header.get("version") != VERSION:
        raise UsageError(f"the file has version {header.get('version')}, read is {VERSION}", where=f"{file}, line 1")
    if str(header.get("company_id")).lower() != company_id.lower():
        raise UsageError(
            f"the file is about company {header.get('company_id')}, this installation keeps {company_id}",
            where=f"{file}, line 1",
        )
    found = []
    for number, text in enumerate(lines[1:], start=2):
        line = _object(file, number, text)
        names = [line.get(name) for name in ("mapping", "erp_id", "crm_id")]
        if not all(isinstance(name, str) and name for name in names):
            raise UsageError("a pair has mapping, erp_id and crm_id", where=f"{file}, line {number}")
        pair = PairOf(*(str(name) for name in names))
        if pair.mapping not in mappings or mappings[pair.mapping].role != "pair":
            raise UsageError(f"no mapping that couples is called {pair.mapping!r}", where=f"{file}, line {number}")
        found.append(pair)
    if header.get("pairs") != len(found):
        raise UsageError(f"the file is cut: {len(found)} of {header.get('pairs')} pairs are there", where=str(file))
    return list(dict.fromkeys(found))


def _object(file: Path, number: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError("this line is no JSON object", where=f"{file}, line {number}")
    return found


def standing_of(pair: PairOf, rows: Mapping[str, Row]) -> str:
    """`coupled`, `due`, `waits for erp` or `crm` (capture has not brought the record), or `taken by` whom."""
    from schemas.coupling import PairState
    from schemas.records import home_key

    row = rows.get(home_key(pair.mapping, pair.erp_id))
    ours = row.pair if row is not None else None
    if ours is not None and ours.state is PairState.COUPLED and ours.erp is not None and ours.crm is not None:
        return "coupled" if ours.crm.id == pair.crm_id else f"taken: the ERP record has crm {ours.crm.id}"
    at_home = rows.get(home_key(pair.mapping, pair.crm_id))
    home = at_home.home if at_home is not None else None
    if home is not None and home.belongs_to not in ("", pair.crm_id, pair.erp_id):
        return f"taken: the CRM record has erp {home.belongs_to}"
    theirs = at_home.pair if at_home is not None else None
    is_twin = pair.crm_id != pair.erp_id and theirs is not None and theirs.state is PairState.COUPLED
    if is_twin and theirs is not None and theirs.crm is not None and theirs.crm.id == pair.crm_id:
        return f"taken: the CRM record has erp {pair.crm_id}"
    if ours is None or ours.erp is None or ours.erp.deleted:
        return "waits for erp"
    is_there = home is not None and (home.evicted is not None or home.belongs_to == pair.erp_id)
    if not is_there and (theirs is None or theirs.crm is None or theirs.crm.deleted):
        return "waits for crm"
    return "due"


def _couple(system: Running, pairs: Sequence[PairOf], *, use: str, wait_s: float) -> None:
    """Send the orders, and follow the rows until all are coupled or nothing moves."""
    from schemas.records import Order, OrderKind

    for start in range(0, len(pairs), CHUNK):
        messages = []
        for pair in pairs[start : start + CHUNK]:
            order = Order(
                order_id=str(uuid.uuid4()),
                kind=OrderKind.COUPLE,
                by="import",
                erp_id=pair.erp_id,
                crm_id=pair.crm_id,
                use=use,
            )
            messages.append(order_message(order, mapping=pair.mapping, home=pair.crm_id))
        system.rows.send(messages)
    left, moved_at = len(pairs), time.monotonic()
    while left and time.monotonic() - moved_at < wait_s:
        rows = system.rows.rows()
        now_left = sum(standing_of(pair, rows) == "due" for pair in pairs)
        if now_left != left:
            left, moved_at = now_left, time.monotonic()
            say(f"import: {len(pairs) - left} of {len(pairs)}")
        elif left:
            time.sleep(LOOK_EVERY_S)


def _tell(standing: Mapping[PairOf, str], *, preview: bool, as_json: bool) -> None:
    if as_json:
        for pair, what in standing.items():
            print_json_line({"mapping": pair.mapping, "erp_id": pair.erp_id, "crm_id": pair.crm_id, "standing": what})
        return
    open_ones = [(pair, what) for pair, what in standing.items() if what not in ("coupled", "due")]
    if open_ones:
        print_table(
            ("mapping", "erp", "crm", "what"),
            [(pair.mapping, pair.erp_id, pair.crm_id, what) for pair, what in open_ones],
        )
    counts = Counter(what.partition(":")[0].partition(" ")[0] for what in standing.values())
    names = {"due": "to couple" if preview else "not coupled yet", "taken": "in conflict", "waits": "wait for capture"}
    said = [f"{count} {names.get(what, what)}" for what, count in sorted(counts.items())]
    typer.echo(", ".join(said) or "no pair is in the file")
