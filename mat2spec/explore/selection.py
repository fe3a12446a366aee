"""What a user selects in the page, as one SQL statement."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import duckdb
from pydantic import Field

from mat2spec.config import Section
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.errors import QueryError
from mat2spec.query.catalog import cookbook_sql, quote_text
from mat2spec.storage.run_directory import PREDICTIONS, VERIFIED
from mat2spec.storage.tables import quoted_identifier

Range = tuple[float | None, float | None]
"""Smallest and largest value; None if there is no limit."""

EMPTY_WINDOW = {
    "phdos": "dos_integral(spectrum, {low}, {high}) < 0.03",
    "edos": "has_gap_of_mask(vb_mask, cb_mask, {low}, {high})",
}
"""Condition for a window without states; 0.03 vibrations per atom is 1 % of all."""

_ELEMENTS = {
    "all": "list_has_all(elements, {listed})",
    "any": "list_has_any(elements, {listed})",
    "only": "list_has_all({listed}, elements)",
    "none": "NOT list_has_any(elements, {listed})",
}


class Selection(Section):
    """Rows of a run. The browser holds it as JSON.

    Args:
        text: SQL condition, whole SELECT or @name of a ready query; empty for all predictions.
        elements: Symbols.
        match: Whether a material has all or any of them, only them, or none.
        ranges: Of columns, by name.
        box: Of the two columns of the scatter plot, by name.
        window: Energies or frequencies between which there are no states.
        seen: Whether in the training set; None for both.
        computed: Whether only materials with a computed spectrum.
        ids: Only these materials, if any.
    """

    text: str = ""
    elements: tuple[str, ...] = ()
    match: Literal["all", "any", "only", "none"] = "all"
    ranges: dict[str, Range] = Field(default_factory=dict)
    box: dict[str, Range] = Field(default_factory=dict)
    window: Range = (None, None)
    seen: bool | None = None
    computed: bool = False
    ids: tuple[str, ...] = ()

    def statement(self, record: dict[str, Any]) -> str:
        """Return the SQL that selects the rows, which `mat2spec query RUN` answers too.

        Args:
            record: Content of the run's run.json.

        Raises:
            QueryError: If there is no such ready query, or the text is several statements or changes something.
        """
        text = self.text.strip().rstrip(";").rstrip()
        sql = cookbook_sql(text[1:], record).rstrip(";") if text.startswith("@") else text
        filters, of_answer = self._filters(SpectrumGrid.from_json(record["grid"])), self._of_answer()
        if not _is_query(sql):
            written = [f"(\n{sql}\n)"] if sql else []
            return _where(f"SELECT * FROM {PREDICTIONS}", [*filters, *written, *of_answer])
        if filters:
            filters = [f"material_id IN ({_where(f'SELECT material_id FROM {PREDICTIONS}', filters)})"]
        conditions = [*filters, *of_answer]
        return _where(f"SELECT * FROM (\n{sql}\n)", conditions) if conditions else sql

    def _filters(self, grid: SpectrumGrid) -> list[str]:
        """Conditions on predictions."""
        conditions = [_ELEMENTS[self.match].format(listed=f"[{_listed(self.elements)}]")] if self.elements else []
        conditions += _in_ranges(self.ranges)
        low, high = self.window
        if low is not None and high is not None:
            conditions.append(EMPTY_WINDOW[grid.name].format(low=low, high=high))
        if self.seen is not None:
            conditions.append("seen_in_training" if self.seen else "NOT seen_in_training")
        if self.computed:
            conditions.append(f"material_id IN (SELECT material_id FROM {VERIFIED})")
        return conditions

    def _of_answer(self) -> list[str]:
        """Conditions on the rows of the answer, which another SELECT may have given other columns."""
        return [*_in_ranges(self.box), *([f"material_id IN ({_listed(self.ids)})"] if self.ids else [])]


def _is_query(sql: str) -> bool:
    """Whether a text is a whole query, else a condition.

    Raises:
        QueryError: If it is several statements, or one that is no query.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error:  # no statement: a condition, or one with a mistake, which its own error will show
        return False
    if statements:
        check_query(sql)
    return bool(statements)


def check_query(sql: str) -> None:
    """Check that a text is a single SELECT.

    Raises:
        QueryError: If it is not.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(" ".join(str(error).split())) from None
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        raise QueryError(f"only one SELECT can be run here, got {', '.join(kinds) or 'none'}; the page changes nothing")


def _in_ranges(ranges: Mapping[str, Range]) -> list[str]:
    limits = [
        (column, sign, limit)
        for column, (low, high) in ranges.items()
        for sign, limit in ((">=", low), ("<=", high))
        if limit is not None
    ]
    return [f"{quoted_identifier(column)} {sign} {limit:.9g}" for column, sign, limit in limits]


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(map(quote_text, texts))


def _where(sql: str, conditions: list[str]) -> str:
    return "\nWHERE ".join([sql, "\n  AND ".join(conditions)]) if conditions else sql
