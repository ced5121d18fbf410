"""Structured logging for both programs: JSON lines when nobody watches, aligned text on a terminal.

Context-free on purpose: loggers are made with `structlog.get_logger()` where they are used and get their fields by `bind`.
"""

import logging
import sys
from typing import Any

import structlog

LEVELS = ("debug", "info", "warning", "error")


def configure(level: str) -> None:
    """Send structlog's and the standard library's records to stderr as one stream. `level` is one of `LEVELS`."""
    threshold = getattr(logging, level.upper())
    terminal = sys.stderr.isatty()
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[Any] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, stamp]
    # Plain tracebacks: the pretty ones show the variables of every frame, and some of those are secrets.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = console if terminal else structlog.processors.JSONRenderer()
    formatter = structlog.processors.format_exc_info
    structlog.configure(
        processors=[*shared, renderer] if terminal else [*shared, formatter, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)
