"""The tree of commands, and whether a line is one of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import typer.main

from drawbar.cli import app

ROOT_COMMAND: Any = typer.main.get_command(app)


def groups_and_commands(
    command: Any = ROOT_COMMAND, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from groups_and_commands(below, (*path, name))


COMMANDS = {path: command for path, command in groups_and_commands() if not hasattr(command, "commands")}
GROUPS = {path: command for path, command in groups_and_commands() if hasattr(command, "commands")}


def resolved(words: Sequence[str]) -> tuple[tuple[str, ...], Any, list[str]]:
    """The command that some words begin with: path, command, and the words left over.

    Raises LookupError when they name none.
    """
    command, path, rest = ROOT_COMMAND, (), list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            raise LookupError(f"drawbar {' '.join(words)}: there is no {rest[0]!r}")
        path, command = (*path, rest[0]), command.commands[rest[0]]
        del rest[0]
    return path, command, rest


def options(command: Any) -> set[str]:
    return {"--help", "-h"} | {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


def fault(line: str) -> str:
    """Why `drawbar LINE` cannot be typed as it stands; blank when it can."""
    words = line.split()
    try:
        path, command, rest = resolved(words)
        if not hasattr(command, "commands"):
            command.make_context(" ".join(path), rest)
    except Exception as wrong:  # noqa: BLE001 - every kind of refusal is an answer here
        return f"drawbar {line}: {wrong}"
    return ""


def mention_fault(text: str) -> str:
    """Why `drawbar TEXT` names what there is not; blank when command and options exist.

    Values may be left out or stand for others, and `a | b` names several commands of one group.
    """
    first, *others = re.split(r"\s+\|\s+", text)
    try:
        path, command, rest = resolved([word.strip("[](),;:.") for word in first.split() if word.strip("[](),;:.")])
        for other in others:
            resolved([*path[:-1], *other.split()[:1]])
    except LookupError as unknown:
        return str(unknown)
    wrong = [word for word in rest if word.startswith("-") and word not in options(command)]
    return f"drawbar {text}: there is no option {', '.join(wrong)}" if wrong else ""
