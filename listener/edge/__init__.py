"""The edge: what a stranger may cost before anybody knows who it is.

door         accepts connections, and lets in whoever comes
descriptors  how many there may be, so that syncs find the file descriptors that they need
crowd        who is connected; the one ranking of who must leave when all places are taken
connection   one of them: what it may cost in time and memory
parser       aiohttp's, up to the first error of a connection
tls          the certificate, and its renewal
proxies      who the client is, behind proxies that are trusted
refusals     how often a client may be refused
guesses      how fast wrong secrets are answered
room         how much memory bodies may take before they are verified; taken back by the same ranking
memory       what connections have left behind, given back to the system
middlewares  the same, around every request
"""

from listener.edge.descriptors import Places, places
from listener.edge.door import Door
from listener.edge.limits import Limits
from listener.edge.middlewares import Edge
from listener.edge.tls import Certificates

__all__ = ["Certificates", "Door", "Edge", "Limits", "Places", "places"]
