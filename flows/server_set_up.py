"""What the deployments need of a Prefect server beside themselves; a build step of `prefect deploy` makes it.

A concurrency limit that does not exist holds nobody back, and says so only where it is strict. And a run whose process
was killed together with its worker stays `Running` for ever, unless something misses its heartbeat.
"""

import logging
import os
from datetime import timedelta
from pathlib import Path

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

logger = logging.getLogger(__name__)

GPU_TAG = "gpu"  # of the tasks that run in a process of their own, which takes the GPU where there is one
LOST_RUNS = "dmesr: runs without a heartbeat have crashed"


def prepare_server(gpu_tasks: int = 1, heartbeat_seconds: int = 90) -> dict[str, str]:
    """Make the GPU's concurrency limit and the automation that ends lost runs, where they are missing.

    A limit that is there keeps its value: who has two GPUs raises it once. Runs without a heartbeat for
    `heartbeat_seconds` become `Crashed`; it takes at least three times PREFECT_FLOWS_HEARTBEAT_FREQUENCY. Returns
    `folder`, where flows run: DMESR_FOLDER, or the folder that is deployed from; and `config`, the pipeline's file:
    DMESR_CONFIG, or the sample shop's.
    """
    with get_client(sync_client=True) as client:
        _limit_tag(client, GPU_TAG, gpu_tasks)
        if not client.read_automations_by_name(LOST_RUNS):
            client.create_automation(_crash_lost_runs(heartbeat_seconds))
    return {
        "folder": os.environ.get("DMESR_FOLDER") or str(Path.cwd()),
        "config": os.environ.get("DMESR_CONFIG") or "configs/sample_shop.yaml",
    }


def _limit_tag(client: SyncPrefectClient, tag: str, limit: int) -> None:
    name = f"tag:{tag}"  # what Prefect looks for when a task with this tag starts
    try:
        limit = client.read_global_concurrency_limit_by_name(name).limit
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
    logger.info("tasks with the tag %s: at most %d at a time", tag, limit)


def _crash_lost_runs(heartbeat_seconds: int) -> AutomationCore:
    run = "prefect.flow-run"
    ends = {f"{run}.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    return AutomationCore(
        name=LOST_RUNS,
        description="Their process is gone, and so is its machine or its worker. Start them again: work that was "
        "committed stays.",
        trigger=EventTrigger(
            after={f"{run}.heartbeat"},
            expect={f"{run}.heartbeat", *ends},
            match={"prefect.resource.id": [f"{run}.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=heartbeat_seconds),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {heartbeat_seconds} s")],
    )
