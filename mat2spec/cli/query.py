"""`mat2spec query`: ask a run with SQL or a ready query, and plot the spectra of the answer."""

from mat2spec.cli.command import print_rows
from mat2spec.config import RunQueryConfig
from mat2spec.query.catalog import run_query
from mat2spec.storage.paths import resolve_location, resolve_output


def main(config: RunQueryConfig, _: str | None) -> None:
    """Print the answer, and write the plot if one is wanted."""
    picture = resolve_output(config.plot, directory=False) if config.plot else None
    run = resolve_location(config.run)
    answer = run_query(run, config.question)
    print_rows(answer, config.format)
    if picture:
        from mat2spec.query.plot import plot_answer  # matplotlib takes seconds to import

        picture.parent.mkdir(parents=True, exist_ok=True)
        plot_answer(run, answer, picture)
