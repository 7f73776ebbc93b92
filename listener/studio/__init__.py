"""Questions to CrafterCMS Studio: is it publishing, is it the primary, and whose credential is this."""

from listener.studio.callers import StudioCallers
from listener.studio.publishing import StudioClient

__all__ = ["StudioCallers", "StudioClient"]
