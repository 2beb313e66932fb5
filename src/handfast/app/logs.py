"""Where log lines go: JSON, one a line, to a file that is bounded, or to standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

import msgspec
import structlog

_OURS = "handfast"
_MOST_BYTES = 16 * 1024 * 1024
_KEPT = 4
# grpclib warns of each stream that Envoy ends, which is how Envoy says goodbye.
_NOISY = {"httpx2": logging.WARNING, "httpcore2": logging.WARNING, "asyncio": logging.WARNING, "grpclib": logging.ERROR,
          "hpack": logging.WARNING}  # fmt: skip


Fields = dict[str, object]


class _Lines(str):
    """Lines that are JSON already."""

    __slots__ = ()


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Formats all but what `tell` has written."""

    def format(self, record: logging.LogRecord) -> str:
        """Give a record's line, or its lines."""
        return record.msg if isinstance(record.msg, _Lines) else super().format(record)


def tell(entries: Iterable[Fields]) -> None:
    """Log entries that are plain values already, a line each, with level, logger and time as all lines have them.

    They go through the machinery of logging once, which costs ten times as much as a line.
    """
    log = logging.getLogger(_OURS)
    if log.isEnabledFor(logging.INFO):
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        common: Fields = {"level": "info", "logger": _OURS, "timestamp": now}
        if lines := "\n".join(_line(entry | common) for entry in entries):
            log.info(_Lines(lines))


def _line(entry: Fields) -> str:
    line = msgspec.json.encode(entry).decode()
    # Events carry texts of strangers, and a terminal obeys some of what is not ASCII.
    return line if line.isascii() else json.dumps(entry)


class _PrivateFile(RotatingFileHandler):
    """Makes each file for its owner alone: the first one, and the next one after each rotation."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, to the next file where this one would grow too long. The library would format each line twice."""
        try:
            line = self.format(record) + self.terminator
            if self._stream().tell() + len(line.encode()) > self.maxBytes:
                self.doRollover()
            self._stream().write(line)
            self.flush()
        except Exception:  # noqa: BLE001 - logging must not end what it tells of
            self.handleError(record)

    def _stream(self) -> TextIOWrapper:
        """Give the open file; a handler that was closed opens it anew, as the library's do."""
        self.stream = self.stream or self._open()
        return self.stream

    def _open(self) -> TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        return os.fdopen(handle, "a", encoding="utf-8")


def log_to(place: str, level: int = logging.INFO) -> None:
    """Send all log lines to a file, or with ``-`` to standard error."""
    handler: logging.Handler
    if place == "-":
        handler = logging.StreamHandler(sys.stderr)
    else:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        handler = _PrivateFile(place, maxBytes=_MOST_BYTES, backupCount=_KEPT)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    # Libraries log through the standard library; their lines become JSON, too.
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name, least in _NOISY.items():
        logging.getLogger(name).setLevel(max(least, level))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
