"""Writes the sample shop: `python -m sample_shop --out DIR`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from sample_shop.attributes import KINDS, PATTERNS, Look, draw_look
from sample_shop.delivery import write_deliveries
from sample_shop.drawing.contact_sheet import contact_sheet
from sample_shop.drawing.photograph import photograph
from sample_shop.simulation import ShopConfig

_SHEET_COLUMNS = 12


def main(
    out: Annotated[Path | None, typer.Option(help="Folder for the deliveries and the truth behind them.")] = None,
    seed: Annotated[int, typer.Option(help="Everything follows from it.")] = ShopConfig().seed,
    sheet: Annotated[Path | None, typer.Option("--contact-sheet", help="Draw a sheet of sample pictures.")] = None,
) -> None:
    """Draw the catalog, simulate the shoppers, write both deliveries."""
    if out is None and sheet is None:
        raise typer.BadParameter("name a folder with --out, a file with --contact-sheet, or both")
    if sheet is not None:
        write_contact_sheet(sheet, seed)
        typer.echo(f"contact sheet in {sheet}")
    if out is not None:
        world = write_deliveries(out, ShopConfig(seed=seed)).world
        typer.echo(f"day0: {len(world.day0)} items, {len(world.day0_events)} events in {out / 'day0'}")
        typer.echo(f"tonight: {len(world.tonight)} items, {len(world.tonight_events)} events in {out / 'tonight'}")


def write_contact_sheet(path: Path, seed: int) -> None:
    """Every kind in every pattern, colours at random."""
    rng = np.random.default_rng(seed)
    pictures = []
    for kind in KINDS:
        for pattern in PATTERNS:
            look = draw_look(rng)
            pictures.append(photograph(Look(kind, look.main_colour, pattern, look.accent_colour), rng))
    contact_sheet(pictures, _SHEET_COLUMNS).save(path)


if __name__ == "__main__":
    typer.run(main)
