"""The process's log: JSON lines, or coloured text on a terminal; in systemd's journal with its fields."""

from listener.logs.process import BackgroundStream, BestEffortStream, JsonLog, configure, is_text

__all__ = ["BackgroundStream", "BestEffortStream", "JsonLog", "configure", "is_text"]
