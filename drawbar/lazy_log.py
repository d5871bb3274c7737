"""A log whose library is loaded with its first line: a command that has nothing to say starts 0.15 s sooner."""

from __future__ import annotations

from typing import Any

from drawbar.settings import LogSettings

_LEVELS = ("debug", "info", "warning", "error")
_not_set_up: list[LogSettings] = []


def set_up_log_when_needed(settings: LogSettings) -> None:
    """As `drawbar.log.set_up_log`, with the first line that passes the level. For commands; a stage logs at once."""
    _not_set_up[:] = [settings]


class LazyLog:
    """A structlog logger in all that is asked of it here."""

    def __init__(self, name: str, **bound: object) -> None:
        self._name, self._bound = name, bound

    def bind(self, **values: object) -> LazyLog:
        return LazyLog(self._name, **{**self._bound, **values})

    def debug(self, event: str, **values: object) -> None:
        self._say("debug", event, values)

    def warning(self, event: str, **values: object) -> None:
        self._say("warning", event, values)

    def error(self, event: str, **values: object) -> None:
        self._say("error", event, values)

    def _say(self, level: str, event: str, values: dict[str, Any]) -> None:
        if _not_set_up:
            settings = _not_set_up[0]
            if _LEVELS.index(level) < _LEVELS.index(settings.level):
                return
            from drawbar.log import set_up_log  # noqa: PLC0415 - the sense of this module

            set_up_log(settings)
            _not_set_up.clear()
        import structlog  # noqa: PLC0415 - likewise

        getattr(structlog.get_logger(self._name).bind(**self._bound), level)(event, **values)
