"""Settings of MLflow's pages."""

from pydantic import Field

from mat2spec.config.base import Section


class UiConfig(Section):
    """Where MLflow's pages are served."""

    port: int = Field(5000, ge=1, le=65535, description="port on this machine; if it is in use, the next free one")
    browser: bool = Field(True, description="open the page in a browser")
