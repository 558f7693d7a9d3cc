"""The environment that Prefect starts in. Called before Prefect is imported: it reads its settings at import."""

import os
from pathlib import Path

OUR_LOGGERS = ("tasks", "storage", "flows", "dmesr_model", "sample_shop")

_DEFAULTS = {
    # Says nothing to anybody unless asked to.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # The embedded server takes about 5 s on two idle cores, and more than the default 20 s on busy ones.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    # Our logs belong to the runs in the UI, too.
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(OUR_LOGGERS),
}


def prepare_environment(work_folder: Path) -> None:
    """Set what the user has not set: no telemetry, patience, and a home of Prefect's own under the work folder.

    A user who has chosen a server (PREFECT_API_URL) or a home (PREFECT_HOME, or a profile in ~/.prefect) keeps it.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    chosen = "PREFECT_API_URL" in os.environ or (Path.home() / ".prefect" / "profiles.toml").exists()
    if chosen and "PREFECT_HOME" not in os.environ:
        return
    home = Path(os.environ.setdefault("PREFECT_HOME", str(work_folder / "prefect")))
    home.mkdir(parents=True, exist_ok=True)
    # Prefect 3.7 puts these two under ~/.prefect whatever its home is.
    os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(home / "storage"))
    os.environ.setdefault("PREFECT_MEMO_STORE_PATH", str(home / "memo_store.toml"))
