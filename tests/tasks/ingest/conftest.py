import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from storage.schemas import INTERACTIONS, ITEMS, REJECTS, TableSchema
from storage.tables import Store
from tasks.ingest.config import IngestConfig
from tasks.ingest.stage import IngestStage
from tasks.stage import Plan, Summary, run_stage


class Shop:
    """A delivery folder, a store, and the stage between them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.delivery = root / "delivery"
        self.delivery.mkdir()
        self.store = Store(root / "store")
        self.work_folder = root / "work"

    def catalog(self, *rows: dict | str, name: str = "catalog.jsonl") -> Path:
        """Write the catalog; a text is a line as it stands."""
        path = self.delivery / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def events(self, *lines: str, header: str = "user_id,item_id,timestamp") -> Path:
        path = self.delivery / "interactions.csv"
        path.write_text("".join(f"{line}\n" for line in (header, *lines)), encoding="utf-8")
        return path

    def stage(self, **settings: object) -> IngestStage:
        """The stage; by default it reads the delivery folder, and any share of refused or missing rows may pass."""
        values: dict[str, object] = {"max_reject_share": 1.0, "max_gone_share": 1.0, **settings}
        if "folder" not in values and "catalog" not in values and "interactions" not in values:
            for name in ("catalog", "interactions"):
                values[name] = sorted(self.delivery.glob(f"{name}.*"))
        return IngestStage(IngestConfig.model_validate(values), self.store, self.work_folder)

    def plan(self, **settings: object) -> Plan:
        return self.stage(**settings).plan()

    def ingest(self, **settings: object) -> Summary:
        return run_stage(self.stage(**settings), lambda progress: None)

    def rows(self, schema: TableSchema, *columns: str) -> list[tuple]:
        """A table's rows in order of the named columns."""
        return self.store.table(schema).read(*columns).sort(columns, nulls_last=True).rows()

    def items(self, *columns: str) -> list[tuple]:
        return self.rows(ITEMS, "item_id", *columns)

    def rejects(self) -> list[tuple]:
        """Row, field, item and reason of each reject."""
        return self.rows(REJECTS, "row", "field", "item_id", "reason")

    def versions(self) -> dict[str, int]:
        """Each table's version: what has not been written has the same."""
        references = self.store.references(ITEMS, INTERACTIONS, REJECTS)
        return {name: reference.version for name, reference in references.items()}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def contents() -> Callable[[Store], dict[str, pl.DataFrame]]:
    """What a store holds, times and runs aside."""

    def read(store: Store) -> dict[str, pl.DataFrame]:
        passing = ("created_at", "updated_at", "first_seen_at", "run_id")
        frames = {schema.name: store.table(schema).read().drop(passing, strict=False) for schema in _COMPARED}
        return {name: frame.sort(frame.columns) for name, frame in frames.items()}

    return read


_COMPARED = (ITEMS, INTERACTIONS, REJECTS)
