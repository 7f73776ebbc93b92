"""The edge: what an unknown client may cost before anybody knows who it is.

acceptor           accepts connections, and lets new ones in
connection_budget  how many connections there may be, so that syncs find the file descriptors that they need
connection_limit   all open connections, and which of them must leave when there is no place left
connection         one connection: what it may cost in time and memory
parser             aiohttp's parser, which stops at the first error of a connection
tls                the certificate and its renewal
proxies            the client's address, behind trusted proxies
refusal_limit      how often a client may be refused
guess_delay        how fast wrong secrets are answered
body_memory        how much memory unverified bodies may take
malloc             gives the memory of ended connections back to the system
middlewares        the middlewares around every request
"""

from listener.edge.acceptor import Acceptor
from listener.edge.connection_budget import ConnectionBudget, places
from listener.edge.limits import Limits
from listener.edge.middlewares import Edge
from listener.edge.tls import Certificates

__all__ = ["Acceptor", "Certificates", "ConnectionBudget", "Edge", "Limits", "places"]
