"""`drawbar sync rebaseline | settle`: after a system was restored, or the state of Drawbar was lost.

An order to each home; what became of them is read from the rows, so a command that was killed is repeated without harm.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from drawbar.cli.couplings import pair_mappings
from drawbar.cli.orders import order_message
from drawbar.cli.running import Running, plural, running, say_unreadable
from drawbar.cli.shared import AsJson, ConnectionFile, MappingName, ask, print_json_line, print_table, say
from drawbar.cli.transfer import CHUNK, write_private
from schemas.errors import UsageError

if TYPE_CHECKING:
    from drawbar.rows import Watch
    from processors.mapping import EntityMapping
    from schemas.coupling import Row
    from schemas.records import OrderKind

SystemName = Literal["erp", "crm"]
TELL_EVERY_S = 5.0


def register(sync: typer.Typer) -> None:
    sync.command("rebaseline")(rebaseline)
    sync.command("settle")(settle)


def rebaseline(
    ctx: typer.Context,
    mapping: MappingName = None,
    system_name: Annotated[
        Optional[SystemName], typer.Option("--system", help="The system that was restored; default: read both.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option("--out", help="Write what differs to this file, too.")] = None,
    wait_s: Annotated[float, typer.Option("--wait-s", min=1, help="Seconds without progress after which to end.")] = 60,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Read every coupled record, take what both systems hold as the new base, write nothing, list what differs.

    Fields are listed by name, without values. One request per pair and system that is read.

    Example: drawbar sync rebaseline --system crm --out differences.jsonl
    """
    system = running(ctx, connection_file)
    known = pair_mappings(system.mappings, mapping)
    from schemas.records import OrderKind

    homes = {key: row for key, row in system.rows.rows().items() if row.mapping in known}
    watching: AbstractContextManager[Watch] = system.rows.watch(homes)
    with watching as watch:
        sent = _order_all(system, homes, OrderKind.REBASE, use=system_name or "")
        read = {key: sent[key] for key, row in homes.items() if _is_coupled(row)}
        left = _follow(watch, read, wait_s=wait_s)
    differences = differences_of(system.rows.rows(), known)
    if out is not None:
        write_private(out, differences)
    _tell(differences, as_json=as_json)
    say_unreadable(system.rows)
    if left:
        say(f"{plural(left, 'pair')} not read yet: see drawbar status, then repeat the command")
        raise typer.Exit(1)


def settle(
    ctx: typer.Context,
    records: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="REF", help="Only the pairs of these records.", show_default=False),
    ] = None,
    use: Annotated[
        Literal["erp", "crm", "keep"], typer.Option("--use", help="Whose values stand; keep: they may differ.")
    ] = ...,  # type: ignore[assignment]
    mapping: MappingName = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Say whose values stand in the fields that a new base left different. What is due is written then.

    Without REF it is said of all of them, after asking. A pair of which a record is gone is settled by a replay of its
    dead letter, not here.

    Example: drawbar sync settle --use erp erp:customer:number=C00010
    """
    from drawbar.rows import find_one, parse_named
    from schemas.coupling import RECORD
    from schemas.records import OrderKind, home_key

    system = running(ctx, connection_file)
    known = pair_mappings(system.mappings, mapping)
    rows = system.rows.rows()
    chosen = {key: row for key, row in rows.items() if row.mapping in known and row.pair and row.pair.differs}
    if records:
        found = [item for name in records for item in find_one(parse_named(name), rows, known.values())]
        wanted = {home_key(item.row.mapping, item.row.id) for item in found}
        chosen = {key: row for key, row in chosen.items() if key in wanted}
    if not chosen:
        raise UsageError("nothing differs there since a new base was taken", next_step="see drawbar explain REF")
    gone = [key for key, row in chosen.items() if row.pair is not None and RECORD in row.pair.differs]
    if not records and not yes and use != "keep":
        ask(f"{plural(len(chosen), 'pair')} differ, {len(gone)} of them by a record that is gone. Settle all: {use}?")
    _order_all(system, chosen, OrderKind.SETTLE, use=use)
    say(f"{plural(len(chosen) - len(gone), 'pair')} settled: {use}")
    if gone:
        how = "drawbar dead-letters replay --use restore, or uncouple"
        say(f"{plural(len(gone), 'pair')} of which a record is gone: {how}")


def _order_all(system: Running, homes: Mapping[str, Row], kind: OrderKind, *, use: str) -> dict[str, str]:
    """The id of the order sent to each home."""
    from schemas.records import Order

    sent = {key: str(uuid.uuid4()) for key in homes}
    keys = list(homes)
    for start in range(0, len(keys), CHUNK):
        system.rows.send(
            [
                order_message(
                    Order(order_id=sent[key], kind=kind, by="operator", use=use),
                    mapping=homes[key].mapping,
                    home=homes[key].id,
                )
                for key in keys[start : start + CHUNK]
            ]
        )
    return sent


def _follow(watch: Watch, sent: Mapping[str, str], *, wait_s: float) -> int:
    """Wait until each of these homes has read its records; how many had not when nothing moved any more.

    A row remembers the lines of its last message, and so says itself that it took its order.
    """
    from drawbar.rows import Gone
    from schemas.coupling import Row
    from schemas.records import home_key

    taken: set[str] = set()
    done: set[str] = set()
    moved_at = told_at = time.monotonic()
    while len(done) < len(sent) and time.monotonic() - moved_at < wait_s:
        before = len(done)
        for news in watch.take(0.5):
            if isinstance(news, Gone):
                done |= {news.key} & sent.keys()
            if not isinstance(news, Row) or (key := home_key(news.mapping, news.id)) not in sent:
                continue
            if any(line.event == "rebasing" and line.cause_id == sent[key] for line in news.last.lines):
                taken.add(key)
            if key in taken and (news.pair is None or not news.pair.rebasing):
                done.add(key)
        now = time.monotonic()
        moved_at = now if len(done) > before else moved_at
        if len(done) > before and (now - told_at >= TELL_EVERY_S or len(done) == len(sent)):
            told_at = now
            say(f"rebaseline: {len(done):,} of {len(sent):,} read")
    return len(sent) - len(done)


def _is_coupled(row: Row) -> bool:
    from schemas.coupling import PairState

    return row.pair is not None and row.pair.state is PairState.COUPLED


def differences_of(rows: Mapping[str, Row], known: Mapping[str, EntityMapping]) -> list[dict[str, Any]]:
    return [
        {
            "mapping": row.mapping,
            "erp_id": row.pair.erp.id if row.pair.erp is not None else "",
            "crm_id": row.pair.crm.id if row.pair.crm is not None else "",
            "fields": list(row.pair.differs),
        }
        for _, row in sorted(rows.items())
        if row.mapping in known and row.pair is not None and row.pair.differs
    ]


def _tell(differences: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for line in differences:
            print_json_line(line)
        return
    if differences:
        cells = [(line["mapping"], line["erp_id"], line["crm_id"], ", ".join(line["fields"])) for line in differences]
        print_table(("mapping", "erp", "crm", "differs in"), cells)
        say("nothing was written; drawbar sync settle --use erp (or crm, keep) decides, for all or for records")
    else:
        typer.echo("both systems agree")
