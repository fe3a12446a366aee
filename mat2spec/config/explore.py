"""Settings of the page over a run."""

from typing import Annotated

import tyro
from pydantic import Field

from mat2spec.config.base import Section


class ExploreConfig(Section):
    """A page over a screening, in a browser on this machine."""

    run: Annotated[str, tyro.conf.Positional] = Field(description="directory or URL of a screening")
    port: int = Field(8050, ge=1024, le=65535, description="port on 127.0.0.1; if it is in use, the next free one")
