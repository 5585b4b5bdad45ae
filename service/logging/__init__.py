"""The service's log: levels, redaction, rendering, and outputs that never block the event loop."""

from service.logging.line import LogLine
from service.logging.output import LogOutput
from service.logging.setup import open_logging

__all__ = ["LogLine", "LogOutput", "open_logging"]
