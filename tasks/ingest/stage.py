"""The ingest stage: reads a delivery, writes items, pictures, interactions and rejects."""

import logging
from pathlib import Path
from typing import ClassVar

import polars as pl

from storage.digests import digest_of
from storage.schemas import INTERACTIONS, ITEMS, PICTURES, REJECTS, TableSchema
from storage.tables import Store
from tasks.ingest.config import IngestConfig
from tasks.ingest.delivery import Delivery
from tasks.ingest.intake import Findings, Intake, Mode
from tasks.ingest.layouts import delivery_of
from tasks.ingest.memo import delivery_digest, files_digest, remember, remembered
from tasks.ingest.pictures import all_held
from tasks.stage import Outcome, Plan, Progress, ReportProgress, StageError, last_rate

__all__ = ["DeliveryRefusedError", "IngestConfig", "IngestStage"]

logger = logging.getLogger(__name__)

_RULES = 4  # counts up when a change of this package makes the same files give other rows


class DeliveryRefusedError(StageError):
    """Too many rows were refused: `rejects` has them under `run_id`, and nothing else of the delivery was taken in."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message, run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return str(self.args[0])


class IngestStage:
    """Takes a delivery in. The same delivery taken in again changes nothing."""

    name: ClassVar[str] = "ingest"
    reads: ClassVar[tuple[TableSchema, ...]] = (ITEMS, PICTURES, INTERACTIONS, REJECTS)
    writes: ClassVar[tuple[TableSchema, ...]] = (ITEMS, PICTURES, INTERACTIONS, REJECTS)
    isolated: ClassVar[bool] = False

    def __init__(self, config: IngestConfig, store: Store, work_folder: Path) -> None:
        self.config = config
        self.store = store
        self.work_folder = work_folder

    @property
    def config_digest(self) -> str:
        return digest_of({"rules": _RULES, **self.config.model_dump(mode="json")})

    def plan(self) -> Plan:
        """Return what the delivery would change; reads the files, unless they are the last run's, unchanged."""
        delivery = delivery_of(self.config)
        digest = delivery_digest(files_digest(delivery), self.config_digest, self.store)
        counts = remembered(self.work_folder, digest)
        if counts is not None and all_held(self.store):
            return Plan(self.name, "rows", up_to_date=counts["rows"], notes=("the delivery is the last run's",))
        findings = Intake(delivery, self.config, self.store, Mode.COUNT, None).take_in(_unreported)
        plan = self._plan_of(findings)
        if not plan.to_do:
            self._remember(findings, digest)
        return plan

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        """Write what is new. Raises DeliveryRefusedError, with the refusals written, where they are too many."""
        delivery = delivery_of(self.config)
        total = plan.to_do + plan.up_to_date
        if plan.work.height:
            findings = Intake(delivery, self.config, self.store, Mode.WRITE_REFUSALS, run_id).take_in(report, total)
            raise DeliveryRefusedError(self._too_many_refused(findings, delivery), run_id)
        files = files_digest(delivery)
        findings = Intake(delivery, self.config, self.store, Mode.WRITE, run_id).take_in(report, total)
        if changed := findings.refused_files(self.config.max_reject_share):  # the plan had found it otherwise
            raise StageError(
                f"{', '.join(changed)} changed while being read; wait for the delivery to end, then run again"
            )
        self._remember(findings, delivery_digest(files, self.config_digest, self.store))
        if findings.refusals:
            logger.warning("ingest refused %s; `dmesr rejects` lists them", "; ".join(_reasons(findings)))
        return Outcome(_counts(findings))

    def _plan_of(self, findings: Findings) -> Plan:
        items, events = findings.items, findings.events
        refused = findings.refused_files(self.config.max_reject_share)
        new = items["new"] + events["new"] + (0 if refused else findings.new_refusals)
        changed = items["changed"] + items["returned"] + items["gone"]
        # Of a delivery that is refused also the refusals that are known: there must be a run that stops.
        failed = findings.retries + (findings.refused_rows.total() if refused else 0)
        rate = last_rate(self.store, self.name)
        return Plan(
            self.name,
            "rows",
            new=new,
            changed=changed,
            failed_before=failed,
            up_to_date=items["same"] + events["known"],
            seconds=(new + changed + failed) / rate if rate else None,
            notes=_notes(findings, refused),
            work=pl.DataFrame({"source": refused}, schema={"source": pl.String}),
        )

    def _remember(self, findings: Findings, digest: str) -> None:
        """Note the delivery, unless it names what can change without it: picture files, and pictures to fetch again."""
        if not findings.picture_files and not findings.retries:
            remember(self.work_folder, digest, {"rows": findings.items.total() + findings.events.total()})

    def _too_many_refused(self, findings: Findings, delivery: Delivery) -> str:
        paths = {source.name: source.path for source in delivery.files}
        lines = [
            f"{paths[name]}: {findings.refused_rows[name]:,} of {findings.rows[name]:,} rows refused "
            f"({findings.reasons[name]})"
            for name in findings.refused_files(self.config.max_reject_share)
        ]
        return (
            f"{'; '.join(lines)}: more than ingest.max_reject_share ({self.config.max_reject_share:g}). Nothing of the "
            "delivery was taken in. `dmesr rejects` lists refused rows with remedies, as does the artifact `rejects`"
        )


def _counts(findings: Findings) -> dict[str, int]:
    items, events = findings.items, findings.events
    written = items["new"] + items["changed"] + items["returned"] + items["gone"] + events["new"]
    return {
        "done": written,
        **{f"items_{state}": items[state] for state in ("new", "changed", "returned", "gone", "same")},
        "events_new": events["new"],
        "events_known": events["known"],
        "rejects_new": findings.new_refusals,
        "rejects": findings.refusals,
    }


def _notes(findings: Findings, refused: list[str]) -> tuple[str, ...]:
    items, events = findings.items, findings.events
    notes = [
        f"items: {items['new']:,} new, {items['changed']:,} changed, {items['returned']:,} back, "
        f"{items['gone']:,} gone",
        f"events: {events['new']:,} new, {events['known']:,} known",
    ]
    notes += [
        f"{source}: column {column!r} is taken as an attribute; if it holds the {name}, set ingest.columns.{name}: "
        f"{column}, if not, name it in ingest.columns.ignore"
        for name, (source, column) in findings.alike.items()
    ]
    if findings.absent:
        names = ", ".join(map(repr, sorted(findings.absent)))
        notes.append(f"no row of the catalog has the column {names} of ingest.columns.ignore; mind the spelling")
    if findings.refusals:
        notes.append(f"refused: {'; '.join(_reasons(findings))}")
    if refused:
        notes.append(f"too many rows of {', '.join(refused)} are refused: a run will stop")
    return tuple(notes)


def _reasons(findings: Findings) -> list[str]:
    return [f"{name}: {reasons}" for name, reasons in findings.reasons.items() if reasons]


def _unreported(_: Progress) -> None:
    """A plan reports no progress."""
