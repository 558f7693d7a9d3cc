"""A small sample shop, and the command line to run the pipeline on it for real."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from sample_shop.catalog import CatalogConfig
from sample_shop.delivery import write_deliveries
from sample_shop.shoppers import ShopperConfig
from sample_shop.simulation import ShopConfig, TonightConfig
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
