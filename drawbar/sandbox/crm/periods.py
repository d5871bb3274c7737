"""Spans of time that Dataverse's queries name: `LastMonth` of a filter, `last-month` of FetchXML. Pure.

Days begin at midnight UTC, weeks on Sunday. A span is the first moment in it and the one after all of it. Fiscal
periods are an organization's own and not known.
Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/queryfunctions
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone

EARLY = datetime.min.replace(tzinfo=timezone.utc)
LATE = datetime.max.replace(tzinfo=timezone.utc)
Span = tuple[datetime, datetime]
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _months_on(at: datetime, months: int) -> datetime:
    """The same day of another month, or its last one."""
    number = at.year * 12 + at.month - 1 + months
    year, month = divmod(number, 12)
    return at.replace(year=year, month=month + 1, day=min(at.day, calendar.monthrange(year, month + 1)[1]))


def _week(now: datetime, weeks: int) -> Span:
    begin = _midnight(now) - ((now.weekday() + 1) % 7) * _DAY + 7 * weeks * _DAY
    return begin, begin + 7 * _DAY


def _month(now: datetime, months: int) -> Span:
    begin = _months_on(_midnight(now).replace(day=1), months)
    return begin, _months_on(begin, 1)


def _year(now: datetime, years: int) -> Span:
    begin = _months_on(_midnight(now).replace(month=1, day=1), 12 * years)
    return begin, _months_on(begin, 12)


def _day(now: datetime, days: int) -> Span:
    begin = _midnight(now) + days * _DAY
    return begin, begin + _DAY


PERIODS: Mapping[str, Callable[[datetime], Span]] = {
    "Today": lambda now: _day(now, 0),
    "Yesterday": lambda now: _day(now, -1),
    "Tomorrow": lambda now: _day(now, 1),
    "Last7Days": lambda now: (_midnight(now) - 7 * _DAY, now),
    "Next7Days": lambda now: (now, _midnight(now) + 8 * _DAY),
    "LastWeek": lambda now: _week(now, -1),
    "ThisWeek": lambda now: _week(now, 0),
    "NextWeek": lambda now: _week(now, 1),
    "LastMonth": lambda now: _month(now, -1),
    "ThisMonth": lambda now: _month(now, 0),
    "NextMonth": lambda now: _month(now, 1),
    "LastYear": lambda now: _year(now, -1),
    "ThisYear": lambda now: _year(now, 0),
    "NextYear": lambda now: _year(now, 1),
}
# From the present time and a number of hours, days, months …
COUNTED: Mapping[str, Callable[[datetime, int], Span]] = {
    "LastXHours": lambda now, x: (now - x * _HOUR, now),
    "LastXDays": lambda now, x: (_midnight(now) - x * _DAY, now),
    "LastXWeeks": lambda now, x: (_midnight(now) - 7 * x * _DAY, now),
    "LastXMonths": lambda now, x: (_months_on(_midnight(now), -x), now),
    "LastXYears": lambda now, x: (_months_on(_midnight(now), -12 * x), now),
    "NextXHours": lambda now, x: (now, now + x * _HOUR),
    "NextXDays": lambda now, x: (now, _midnight(now) + (x + 1) * _DAY),
    "NextXWeeks": lambda now, x: (now, _midnight(now) + (7 * x + 1) * _DAY),
    "NextXMonths": lambda now, x: (now, _months_on(_midnight(now), x) + _DAY),
    "NextXYears": lambda now, x: (now, _months_on(_midnight(now), 12 * x) + _DAY),
    "OlderThanXMinutes": lambda now, x: (EARLY, now - x * timedelta(minutes=1)),
    "OlderThanXHours": lambda now, x: (EARLY, now - x * _HOUR),
    "OlderThanXDays": lambda now, x: (EARLY, _midnight(now) - x * _DAY),
    "OlderThanXWeeks": lambda now, x: (EARLY, _midnight(now) - 7 * x * _DAY),
    "OlderThanXMonths": lambda now, x: (EARLY, _months_on(_midnight(now), -x)),
    "OlderThanXYears": lambda now, x: (EARLY, _months_on(_midnight(now), -12 * x)),
}
# From a day that is given.
DATED: Mapping[str, Callable[[datetime], Span]] = {
    "On": lambda day: _day(day, 0),
    "OnOrAfter": lambda day: (_midnight(day), LATE),
    "OnOrBefore": lambda day: (EARLY, _day(day, 0)[1]),
}
