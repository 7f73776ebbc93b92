"""The edge: what a stranger may cost before anybody knows who it is.

door         accepts connections, so many in all and so many a client
connection   one of them: how long its head may take, and a reader that does not read
tls          the certificate, and its renewal
proxies      who the client is, behind proxies that are trusted
refusals     how often a client may be refused
guesses      how fast wrong secrets are answered
room         how much memory bodies may take before they are verified
middlewares  the same, around every request
"""

from listener.web.edge.door import Door
from listener.web.edge.limits import Limits
from listener.web.edge.middlewares import Edge
from listener.web.edge.tls import Certificates

__all__ = ["Certificates", "Door", "Edge", "Limits"]
