"""A small sample shop, the command line to run the pipeline on it for real, and its first night.

The night takes minutes: it is made once for all processes of a test run.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil
import pytest
import yaml
from filelock import FileLock

from sample_shop.catalog import CatalogConfig
from sample_shop.delivery import write_deliveries
from sample_shop.shoppers import ShopperConfig
from sample_shop.simulation import ShopConfig, TonightConfig
from storage.schemas import GENERATIONS
from tasks.config import PipelineConfig, load_config

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 900  # for one command: a busy machine takes five times as long as an idle one

SETTINGS = {
    "name": "small_shop",
    "store": {"url": "work/store"},
    "work_folder": "work",
    "ingest": {"folder": "deliveries/day0", "columns": {"ignore": ["price"]}},
    "describe": {
        "model": str(ROOT / "sample_shop" / "tiny_vlm" / "checkpoint"),
        "engine": {"kind": "offline", "dtype": "float32", "kv_cache_gib": 1, "enforce_eager": True, "in_flight": 8},
        "commit_seconds": 0.2,
    },
    "embed": {},
    "train": {
        "variants": [{"name": "dmesr"}, {"name": "id_only", "model": {"views": [], "use_segments": False}}],
        "seeds": [0],
        "train": {"max_epochs": 2, "checkpoint_seconds": 0.5},
    },
    "evaluate": {},
    "recommend": {},
    "report": {},
    "maintain": {"small_files": 1000},  # the tables stay as they are, so that a second night finds what it knows
}
SHOP = ShopConfig(
    catalog=CatalogConfig(items=48),
    shoppers=ShopperConfig(shoppers=300),
    tonight=TonightConfig(new_items=5, new_descriptions=10, new_pictures=2, broken_pictures=1, returning_shoppers=20),
)


@dataclass(frozen=True)
class SmallShop:
    """A folder with deliveries and a config; `dmesr` runs the command line on it as a user would."""

    folder: Path

    @property
    def config_file(self) -> Path:
        return self.folder / "shop.yaml"

    @property
    def config(self) -> PipelineConfig:
        return load_config(self.config_file)

    @property
    def shop_config(self) -> ShopConfig:
        return SHOP

    def dmesr(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(command, *arguments)
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.command_line", command, *arguments, "--config", str(self.config_file)],
            env=os.environ | {"HOME": str(self.folder), "PREFECT_HOME": str(self.folder / "prefect")},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def copy_to(self, folder: Path) -> "SmallShop":
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("prefect"))
        return SmallShop(folder)


@pytest.fixture(scope="session")
def day0(tmp_path_factory: pytest.TempPathFactory) -> SmallShop:
    """The shop before anything ran."""
    shop = SmallShop(tmp_path_factory.mktemp("day0"))
    write_deliveries(shop.folder / "deliveries", SHOP)
    shop.config_file.write_text(yaml.safe_dump(SETTINGS))
    return shop


@dataclass(frozen=True)
class Night:
    """A night that was killed in the middle of describe, and started again."""

    shop: SmallShop
    answers_when_killed: pl.DataFrame
    output: str


@dataclass(frozen=True)
class NightFolder:
    """What the processes of a test run share: the night, and a copy of the shop that nothing is run on."""

    folder: Path

    @property
    def untouched(self) -> SmallShop:
        return SmallShop(self.folder / "untouched")

    def make_once(self, day0: SmallShop) -> None:
        """Return when the night is over, whichever process runs it."""
        with FileLock(self.folder.with_suffix(".lock")):
            if not self.untouched.folder.exists():
                self.make(day0)

    def make(self, day0: SmallShop) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # of a night that failed
        shop = day0.copy_to(self.folder / "shop")
        killed = shop.start("run")
        answers = shop.config.open_store().table(GENERATIONS)
        deadline = time.monotonic() + LIMIT_SECONDS
        while answers.count() == 0 and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        kill(killed)
        answers.read("generation_key", "text").write_parquet(self.folder / "answers.parquet")
        completed = shop.dmesr("run")
        assert completed.returncode == 0, completed.stdout
        (self.folder / "output.txt").write_text(completed.stdout, encoding="utf-8")
        shop.copy_to(self.folder / "copy")
        (self.folder / "copy").rename(self.untouched.folder)

    def read(self) -> Night:
        answers, output = pl.read_parquet(self.folder / "answers.parquet"), self.folder / "output.txt"
        return Night(SmallShop(self.folder / "shop"), answers, output.read_text(encoding="utf-8"))


def kill(flow: "subprocess.Popen[str]") -> None:
    """SIGKILL a flow; the stage's process and Prefect's server end by themselves."""
    below = psutil.Process(flow.pid).children(recursive=True)
    flow.kill()
    flow.communicate(timeout=LIMIT_SECONDS)  # returns when nobody holds its output any more
    assert not psutil.wait_procs(below, timeout=60)[1]


@pytest.fixture(scope="session")
def night_folder(day0: SmallShop, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> NightFolder:
    own = tmp_path_factory.getbasetemp()
    found = NightFolder((own if worker_id == "master" else own.parent) / "night")
    found.make_once(day0)
    return found


@pytest.fixture(scope="session")
def night(night_folder: NightFolder) -> Night:
    """The night itself, for tests in `night/`: they run in one process, and may run the pipeline on it again."""
    return night_folder.read()


@pytest.fixture(scope="session")
def after_night(night_folder: NightFolder) -> SmallShop:
    """The shop after its night, for tests in any process: to read, and to copy."""
    return night_folder.untouched
