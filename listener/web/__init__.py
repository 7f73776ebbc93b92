"""The HTTP surface, on aiohttp."""

from listener.web.app import Ports, application
from listener.web.edge import Certificates, Door, Edge, Limits, Places, places
from listener.web.refused import server_log
from listener.web.replies import add_headers

__all__ = [
    "Certificates",
    "Door",
    "Edge",
    "Limits",
    "Places",
    "Ports",
    "add_headers",
    "application",
    "places",
    "server_log",
]
