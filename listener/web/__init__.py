"""The HTTP surface, on aiohttp."""

from listener.web.app import Ports, application
from listener.web.replies import add_headers, private_problem

__all__ = ["Ports", "add_headers", "application", "private_problem"]
