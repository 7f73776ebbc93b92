"""What every map of settings has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A map of settings: no key but the known ones, no type but the right one."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
