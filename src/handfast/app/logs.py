"""Where log lines go: JSON, one a line, to a file that is bounded, or to standard error."""

from __future__ import annotations

import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

_MOST_BYTES = 16 * 1024 * 1024
_KEPT = 4


def log_to(place: str, level: int = logging.INFO) -> None:
    """Send all log lines to a file, or with ``-`` to standard error."""
    handler: logging.Handler
    if place == "-":
        handler = logging.StreamHandler(sys.stderr)
    else:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        handler = RotatingFileHandler(place, maxBytes=_MOST_BYTES, backupCount=_KEPT)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for noisy in ("httpx2", "httpcore2", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
