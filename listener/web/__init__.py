"""The HTTP surface, on aiohttp."""

from listener.web.app import Ports, application
from listener.web.unreadable import server_log

__all__ = ["Ports", "application", "server_log"]
