"""Errors that a user can act on. The message is one line: what is wrong, the rule, the number and the way out."""


class Mat2SpecError(Exception):
    """Input that cannot be used. Jobs print the message and exit with 2."""


class MaterialError(Mat2SpecError):
    """One material that cannot be used. Can be pickled, so that it can be raised in another process.

    Args:
        material_id: Id of the material.
        rule: What is wrong, and what to do about it.
    """

    def __init__(self, material_id: str, rule: str) -> None:
        super().__init__(f"{material_id}: {rule}")
        self.material_id = material_id
        self.rule = rule

    def __reduce__(self) -> tuple[type["MaterialError"], tuple[str, str]]:
        return type(self), (self.material_id, self.rule)


class StructureError(MaterialError):
    """A structure that cannot become a graph. In a screening it becomes a row of rejects and does not stop the job."""


class SpectrumError(MaterialError):
    """A density of states that cannot become a label."""


class MissingError(MaterialError):
    """A material, or a computed property of it, that a database does not have."""


class CalculationError(MaterialError):
    """A calculation that gave no spectrum. In a verification it becomes a row of rejects."""


class ConfigError(Mat2SpecError):
    """A configuration with an unknown key, a value out of range or a path that does not exist."""


class TableError(Mat2SpecError):
    """A table that cannot be read or lacks a column."""


class CheckpointError(Mat2SpecError):
    """A checkpoint that is missing, incomplete, of another version or made for another purpose."""


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
    """A run directory that cannot be written or belongs to another run."""


class UnfinishedError(Mat2SpecError):
    """A job that stopped early. Finished work is saved, and the same command resumes it; jobs exit with 1."""


class StorageError(UnfinishedError):
    """Storage that failed during a job: full, unreachable or read-only."""


class ServiceError(UnfinishedError):
    """A network service that does not answer, or not as expected."""


class QueryError(Mat2SpecError):
    """SQL that failed, or a named query that does not exist."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural: "1 worker", "2 workers"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
