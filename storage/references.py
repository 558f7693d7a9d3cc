"""References travel between stages; rows don't."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TableRef:
    """A table as it was at one version.

    `table_id` is the Delta table's own id: a store that was deleted and made again has the same versions but other ids.
    """

    name: str
    location: str
    table_id: str
    version: int
