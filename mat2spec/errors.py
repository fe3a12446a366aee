"""The errors that a user can act on: each is one line with the thing, the rule, the number and the way out."""


class Mat2SpecError(Exception):
    """Something the user gave cannot be used. Jobs print it as one line and exit with 2."""


class MaterialError(Mat2SpecError):
    """What is wrong with one material; it stays what it is between processes.

    Args:
        material_id: Which.
        rule: What is wrong, and what to do.
    """

    def __init__(self, material_id: str, rule: str) -> None:
        super().__init__(f"{material_id}: {rule}")
        self.material_id = material_id
        self.rule = rule

    def __reduce__(self) -> tuple[type["MaterialError"], tuple[str, str]]:
        return type(self), (self.material_id, self.rule)


class StructureError(MaterialError):
    """A crystal that cannot become a graph. In a screening it is a row of rejects, never a dead job."""


class SpectrumError(MaterialError):
    """A density of states that cannot become a label."""


class MissingError(MaterialError):
    """A material, or what was computed of it, that a database does not have."""


class CalculationError(MaterialError):
    """A calculation that gave no spectrum. In a verification it is a row of rejects."""


class ConfigError(Mat2SpecError):
    """A configuration with an unknown key, a value out of range or a path that does not exist."""


class TableError(Mat2SpecError):
    """A table that cannot be read or lacks a column."""


class CheckpointError(Mat2SpecError):
    """A checkpoint that is missing, incomplete, of another version or for another purpose."""


class MissingExtraError(Mat2SpecError):
    """An optional package that is not installed.

    Args:
        purpose: What needs it, as the subject of a sentence: "plotting spectra".
        extra: Name of the extra that installs it.
    """

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs packages that are not installed: pip install 'mat2spec[{extra}]'")
        self.purpose = purpose
        self.extra = extra

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        return type(self), (self.purpose, self.extra)


class RunError(Mat2SpecError):
    """A run directory that cannot be written or belongs to another screening."""


class UnfinishedError(Mat2SpecError):
    """A job that had to stop under way. What is finished is kept, and the same command goes on; jobs exit with 1."""


class StorageError(UnfinishedError):
    """Storage that fails under way: full, gone, read-only."""


class ServiceError(UnfinishedError):
    """A service on the network that does not answer, or no longer as it did."""


class QueryError(Mat2SpecError):
    """SQL that failed, or a named question that does not exist."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural: "1 worker", "2 workers"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
