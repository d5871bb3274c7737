"""What all commands share: finding the system, reporting a coded error, printing tables and JSON lines.

Commands raise `DrawbarError`; `CodedGroup` prints it to standard error and ends with its exit code: 0 done, 1 failed,
2 settings, mapping or usage wrong, 3 not reachable. Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from schemas.errors import DrawbarError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from drawbar.settings import Settings

COLUMNS = 100  # of a line that is folded, where the terminal is not narrower
WIDE = 400  # columns of a table that goes into a file or a pipe: nothing is cut there

ConnectionFile = Annotated[
    Optional[Path],
    typer.Option(
        "--connection-file",
        envvar="DRAWBAR_CONNECTION_FILE",
        help="Connection file of the running system.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
MappingName = Annotated[Optional[str], typer.Option("--mapping", help="Only this mapping.", show_default=False)]
WaitS = Annotated[float, typer.Option("--wait-s", min=0, help="Seconds to wait for the result; 0: only send.")]


class CodedGroup(TyperGroup):
    """A group of commands that ends a coded error as people and scripts need it. Every `typer.Typer` here uses it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DrawbarError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error


def new_app(text: str) -> typer.Typer:
    """A group of commands; `text` is what it is for. Plain help, because the rich one takes 0.2 s to load."""
    return typer.Typer(
        help=text,
        cls=CodedGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,  # it prints local variables, and those can be secrets
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def open_settings(connection_file: Path | None = None, **overrides: Any) -> Settings:
    """The settings of the system that the options name. Raises SettingsError."""
    from drawbar.settings import load_settings

    return load_settings(connection_file, **overrides)


def open_running(connection_file: Path | None = None, **overrides: Any) -> Settings:
    """As `open_settings`, for a command that needs a broker. Raises SettingsError when none is named."""
    from schemas.errors import SettingsError

    settings = open_settings(connection_file, **overrides)
    if not settings.bus.bootstrap_servers:
        raise SettingsError(
            "which system is meant? neither a connection file nor a broker is named",
            where="--connection-file, DRAWBAR_CONNECTION_FILE or DRAWBAR_BUS__BOOTSTRAP_SERVERS",
            next_step="start one with `drawbar up --sandbox --connection-file PATH` and name that file",
        )
    if settings.registry.url:
        from drawbar.registry import Registry, RegistryFraming
        from schemas.codec import install

        install(RegistryFraming(Registry(settings.registry)))
    return settings


def print_error(error: DrawbarError) -> None:
    """Code, what, where and what to do, on standard error."""
    sys.stderr.write(error.for_people() + "\n")
    sys.stderr.flush()


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def say(text: str) -> None:
    """A line about what happens, on standard error: it never mixes with results."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def columns() -> int:
    return min(COLUMNS, shutil.get_terminal_size(fallback=(COLUMNS, 24)).columns)


def folded(text: str, *, indent: int) -> list[str]:
    """The text in lines that fit the terminal below `indent`. A word is never broken: an id can be copied."""
    return textwrap.wrap(text, max(columns() - indent, 20), break_long_words=False, break_on_hyphens=False)


def print_json_line(value: Mapping[str, Any]) -> None:
    """One JSON object on one line; times in ISO format."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_plain) + "\n")
    sys.stdout.flush()


def console() -> Console:
    """Standard output for tables: as wide as the terminal, or wide enough for everything where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False, emoji=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """A plain table. A cell is text as it stands: nothing in it is taken for markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console().print(table)


def _plain(value: Any) -> Any:
    from datetime import datetime

    return value.isoformat() if isinstance(value, datetime) else str(value)


def ask(question: str) -> None:
    """Go on when the answer is yes. Raises UsageError where nobody can be asked, typer.Abort for a no."""
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here", next_step="look at what would follow, then add --yes")
    typer.confirm(question, abort=True, err=True)
