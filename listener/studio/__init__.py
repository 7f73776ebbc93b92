"""Asking CrafterCMS Studio: is it publishing, is it its cluster's primary, and whose is a credential."""

from listener.studio.callers import StudioCallers
from listener.studio.publishing import StudioClient

__all__ = ["StudioCallers", "StudioClient"]
