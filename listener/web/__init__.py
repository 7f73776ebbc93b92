"""The HTTP surface, on aiohttp."""

from listener.web.app import Ports, application

__all__ = ["Ports", "application"]
