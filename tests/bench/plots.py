"""The pictures of docs/benchmarks.md, drawn from the raw numbers: `python -m tests.bench.plots FOLDER`.

FOLDER holds the JSON files of the measurements; the SVG files are written beside them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LEFT, LINE = 760, 250, 26
COLOURS = ("#4269d0", "#efb118", "#6cc5b0")
AHEAD = {"captured": "until captured", "decided": "until decided", "written": "until written"}


def main(folder: Path) -> None:
    for name, draw in {"decide": decide, "crossing": crossing, "memory": memory}.items():
        path = folder / f"{name}.json"
        if path.exists():
            (folder / f"{name}.svg").write_text(draw(json.loads(path.read_text("utf-8"))["raw"]), "utf-8")


def decide(raw: Mapping[str, Any]) -> str:
    """Processor time per event of each contender, median of the rounds."""
    bars = [
        (name, [middle([found["cpu_us"] for found in rounds])]) for name, rounds in sorted(raw["contenders"].items())
    ]
    return chart("Processor time of one event, in microseconds", bars, ("",), digits=0)


def crossing(raw: Mapping[str, Any]) -> str:
    """The median way of an edit, by stage."""
    bars = []
    for load, found in raw.items():
        for system, way in (("erp", "ERP to CRM"), ("crm", "CRM to ERP")):
            if "ways" in found:
                stages = found["ways"][system]
                ends = [middle(stages[stage]) for stage in AHEAD]
                steps = [now - before for now, before in zip(ends, [0.0, *ends], strict=False)]
                bars.append((f"{load}: {way}", [1000 * step for step in steps]))
    return chart("From an edit to its write on the other side, median, in milliseconds", bars, tuple(AHEAD.values()))


def memory(raw: Mapping[str, Any]) -> str:
    bars = [(f"{point['couplings']:,} couplings", [point["resident_mb"]]) for point in raw["points"]]
    return chart("Memory of a decide process, in MB", bars, ("",))


def middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def chart(title: str, bars: Sequence[tuple[str, Sequence[float]]], parts: Sequence[str], *, digits: int = 0) -> str:
    """Horizontal bars, each of one part or several, with the sum at its end."""
    scale = (WIDTH - LEFT - 80) / max(sum(values) for _, values in bars)
    body = [f'<text x="10" y="22" font-size="15" font-weight="bold">{escape(title)}</text>']
    top = 40
    if len(parts) > 1:
        for number, part in enumerate(parts):
            x = LEFT + 130 * number
            body.append(f'<rect x="{x}" y="{top}" width="12" height="12" fill="{COLOURS[number]}"/>')
            body.append(f'<text x="{x + 17}" y="{top + 11}">{escape(part)}</text>')
        top += LINE
    for row, (label, values) in enumerate(bars):
        y, x = top + row * LINE, float(LEFT)
        body.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        for number, value in enumerate(values):
            body.append(f'<rect x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="18" fill="{COLOURS[number]}"/>')
            x += value * scale
        body.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{sum(values):,.{digits}f}</text>')
    height = top + len(bars) * LINE + 10
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
                ' font-family="sans-serif" font-size="13">'
            ),
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            *body,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
