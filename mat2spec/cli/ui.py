"""`mat2spec ui`: MLflow's pages of all trainings and screenings."""

import signal
from contextlib import suppress

from mat2spec.config import UiConfig
from mat2spec.distributed.mlflow.pages import show_pages


def main(config: UiConfig, _name: str | None) -> None:
    """Serve the pages until an interrupt, which is the way to end them, or a SIGTERM: the server ends too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        show_pages(config.port, browser=config.browser)
