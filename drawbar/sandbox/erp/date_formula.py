"""Business Central's date formulas: up to three steps from a day, such as `30D`, `CM+10D`, `-WD2`. Pure.

A step is a number of units, the end (with a minus the beginning) of the current unit, or the next (the last) day of a
month or of a week that has a number.
Sources: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/methods-auto/dateformula/dateformula-data-type,
https://learn.microsoft.com/previous-versions/dynamicsnav-2016/dd301368(v=nav.90)
"""

from __future__ import annotations

import calendar
import datetime as dt
import re

_STEP = re.compile(r"([+-]?)(?:(\d{1,4})([DWMQY])|C([DWMQY])|(WD|D)(\d{1,2}))")
_FORMULA = re.compile(rf"(?:{_STEP.pattern}){{0,3}}")
_MONTHS = {"M": 1, "Q": 3, "Y": 12}
_HIGHEST = {"WD": 7, "D": 31}


def is_formula(text: str) -> bool:
    """Whether an upper-case text is one; nothing is one, too."""
    if not _FORMULA.fullmatch(text):
        return False
    return all(1 <= int(step[5]) <= _HIGHEST[step[4]] for step in _STEP.findall(text) if step[4])


def moved(day: dt.date, formula: str) -> dt.date:
    """Where a formula leads to. Raises OverflowError or ValueError beyond the calendar."""
    for sign, count, unit, current, named, number in _STEP.findall(formula):
        back = sign == "-"
        if unit:
            day = _by(day, unit, -int(count) if back else int(count))
        elif current:
            day = _edge(day, current, back=back)
        else:
            day = _named(day, named, int(number), back=back)
    return day


def _by(day: dt.date, unit: str, count: int) -> dt.date:
    if unit not in _MONTHS:
        return day + dt.timedelta(days=count * (7 if unit == "W" else 1))
    month = day.year * 12 + day.month - 1 + count * _MONTHS[unit]
    return _in_month(month, day.day)


def _edge(day: dt.date, unit: str, *, back: bool) -> dt.date:
    if unit not in _MONTHS:
        monday = day - dt.timedelta(days=day.isoweekday() - 1)
        return day if unit == "D" else monday if back else monday + dt.timedelta(days=6)
    months = _MONTHS[unit]
    first = day.year * 12 + (day.month - 1) // months * months
    return _in_month(first, 1) if back else _in_month(first + months - 1, 31)


def _named(day: dt.date, kind: str, number: int, *, back: bool) -> dt.date:
    """Strictly before or after the day."""
    if kind == "WD":
        ahead = (number - day.isoweekday()) % 7
        return day + dt.timedelta(days=ahead - 7 if back else ahead or 7)
    month, step = day.year * 12 + day.month - 1, -1 if back else 1
    here = _in_month(month, number)
    return here if (here < day if back else here > day) else _in_month(month + step, number)


def _in_month(month: int, day: int) -> dt.date:
    """A day of a month counted from the year 0, or its last one."""
    year, of_year = divmod(month, 12)
    return dt.date(year, of_year + 1, min(day, calendar.monthrange(year, of_year + 1)[1]))
