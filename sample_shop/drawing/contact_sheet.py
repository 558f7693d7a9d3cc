"""Many pictures on one sheet, to judge the drawing by eye."""

from collections.abc import Sequence

from PIL import Image

_GAP_PX = 6


def contact_sheet(pictures: Sequence[Image.Image], columns: int, tile_px: int = 128) -> Image.Image:
    """The pictures in rows of `columns`, each `tile_px` square, on white."""
    rows = -(-len(pictures) // columns)
    step = tile_px + _GAP_PX
    sheet = Image.new("RGB", (columns * step + _GAP_PX, rows * step + _GAP_PX), "white")
    for position, picture in enumerate(pictures):
        row, column = divmod(position, columns)
        sheet.paste(picture.resize((tile_px, tile_px)), (_GAP_PX + column * step, _GAP_PX + row * step))
    return sheet
