"""Figures for Prometheus, on an address of their own, because their labels name sites.

Each label has few values: the configured hooks and sites (the sites of a pattern are counted together), the
codes of the error tree, the routes. No text of a request becomes a label: a stranger could fill the memory.
"""

from listener.metrics.events import CODES, Metrics, application
from listener.metrics.present import Scope, Watched

__all__ = ["CODES", "Metrics", "Scope", "Watched", "application"]
