"""The options that most commands share, and the check of those that name a file to write."""

import os
from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path, typer.Option("--config", "-c", envvar="DMESR_CONFIG", help="The pipeline's YAML file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="A setting over the file's: --set 'train.seeds=[0,1]'. Repeatable.")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the delivery, instead of the config's files.")
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force", help="Train every model anew; other stages still do what their plans say, past Prefect's cache."
    ),
]
ItemsOption = Annotated[
    Path | None, typer.Option("--items", help="File of item ids, one a line: work on these items only.")
]


def check_writable(file: Path) -> None:
    """Make the file's folder, before the work that the file will hold. Raises OSError, BadParameter if it can't be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise typer.BadParameter(f"{file} can't be written; name a file in a folder that you may write to")
