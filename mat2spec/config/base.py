"""Base class of all configuration sections, and types of their values."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]

_PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg")


def _check_picture(path: str) -> str:
    if not path.lower().endswith(_PICTURES):
        raise ValueError(f"{path} must end in .png, .pdf, .svg or .jpg")
    return path


Picture = Annotated[str, AfterValidator(_check_picture)]
"""Path of a picture to write; its ending is the format."""


class Section(BaseModel):
    """A section of a configuration: immutable, without unknown keys, without infinite or NaN numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
