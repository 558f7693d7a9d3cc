"""Pictures as they stand in the report and in comparisons of prompts: small, and inside the page."""

import base64
import io
import logging

from markupsafe import Markup

from storage.picture_checks import PictureError
from storage.pictures import PictureStore, load_picture

logger = logging.getLogger(__name__)

_QUALITY = 65


class Thumbnails:
    """Makes each picture small once; a picture that can't be read is left out and logged."""

    def __init__(self, pictures: PictureStore, side: int) -> None:
        self._pictures = pictures
        self._side = side
        self._made: dict[str, Markup | None] = {}

    def of(self, reference: str | None, digest: str | None) -> Markup | None:
        """Return a data URI, or None where there is no picture to show."""
        if reference is None or digest is None:
            return None
        if reference not in self._made:
            self._made[reference] = self._make(reference, digest)
        return self._made[reference]

    def _make(self, reference: str, digest: str) -> Markup | None:
        try:
            picture = load_picture(self._pictures, reference, digest, max_side=self._side)
        except PictureError as error:
            logger.info("a picture is left out: %s", error)
            return None
        content = io.BytesIO()
        picture.save(content, "WEBP", quality=_QUALITY)
        # Base64 holds nothing that HTML would read as more than text.
        return Markup("data:image/webp;base64," + base64.b64encode(content.getvalue()).decode())
