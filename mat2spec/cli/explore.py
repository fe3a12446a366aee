"""`mat2spec explore`: a page over a run."""

from mat2spec.config import ExploreConfig
from mat2spec.explore.reader import RunReader
from mat2spec.explore.server import serve
from mat2spec.storage.paths import resolve_location


def main(config: ExploreConfig, _: str | None) -> None:
    """Serve the page until the user interrupts."""
    serve(RunReader(resolve_location(config.run)), config.port)
