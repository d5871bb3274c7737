"""The repository as the tests of this folder read it: its files, its modules, the tables in its documents."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "processors", "producers", "consumers", "drawbar")

Row = tuple[str, ...]


@cache
def files() -> tuple[Path, ...]:
    """Every file that is in a commit or would come into the next one, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return tuple(path for name in sorted(set(listed.split("\0"))) if name and (ROOT / (path := Path(name))).is_file())


def sources(*folders: str) -> tuple[Path, ...]:
    """The Python files below some top-level folders."""
    return tuple(path for path in files() if path.suffix == ".py" and path.parts[0] in folders)


def documents() -> tuple[Path, ...]:
    return tuple(path for path in files() if path.suffix == ".md")


def text(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(text(path), filename=str(path))


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or in a function, by its full name."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield ".".join([*above, *([node.module] if node.module else [])])


def sections(markdown: str) -> dict[str, str]:
    """The text below each heading of level 2; below "" what comes before the first."""
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def table(markdown: str, *columns: str) -> list[Row]:
    """The rows of the first table that has exactly these columns."""
    lines = markdown.splitlines()
    start = lines.index(row(columns))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]))
    return rows


def row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def prose(markdown: str) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)


def spans(markdown: str) -> list[str]:
    """What stands in `backticks` outside of fenced blocks."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(markdown))]


def typed_commands(markdown: str) -> list[str]:
    """What a reader is shown to type: the lines of fenced blocks that begin with `$`."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", markdown, flags=re.MULTILINE | re.DOTALL)
    shown = (line.strip()[2:] for block in blocks for line in block.splitlines() if line.strip().startswith("$ "))
    return [re.sub(r"\s+#.*$", "", line) for line in shown]
