"""Figures for Prometheus, on an address of their own, because their labels name sites.

Every label is one of few: a configured hook or site (the sites of a pattern are counted together), a code of
the error tree, a route. No text of a request becomes a label: a stranger could fill the memory with labels.
"""

from listener.metrics.events import CODES, Metrics, application
from listener.metrics.present import Scope, Watched

__all__ = ["CODES", "Metrics", "Scope", "Watched", "application"]
