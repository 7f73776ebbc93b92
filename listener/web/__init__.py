"""The HTTP surface, on aiohttp."""

from listener.web.app import Ports, application
from listener.web.edge import Certificates, Door, Edge, Limits
from listener.web.unreadable import server_log

__all__ = ["Certificates", "Door", "Edge", "Limits", "Ports", "application", "server_log"]
