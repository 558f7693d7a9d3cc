"""The catalog as drafts of items: ids checked and unique, texts clean, attributes together, pictures still as given."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from storage.digests import digest_of_text
from tasks.ingest.cleaning import BadValueError, Clean, attributes_json, clean, id_text, plain_text, words_of_html
from tasks.ingest.config import CatalogColumns, IngestConfig
from tasks.ingest.delivery import Delivery, SourceFile
from tasks.ingest.reading import Row, read_rows
from tasks.ingest.refusals import Refusal

_BATCH_PICTURES = 2048
_BATCH_PICTURE_BYTES = 64 * 2**20
_FIELDS = ("title", "description", "image")
_PICTURE_KEYS = ("bytes", "hi_res", "large", "url", "path", "thumb")


class ItemDraft(NamedTuple):
    """An item as delivered; `picture` is a path, a URL or the bytes themselves."""

    source: str
    row: int
    item_id: str
    title: str | None
    description: str | None
    attributes: str | None
    title_digest: str | None
    description_digest: str | None
    attributes_digest: str | None
    picture: str | bytes | None


class CatalogPass:
    """One pass over the catalog files.

    Then `accepted` and `refused` hold the ids met, `rows` the count by file, `alike` columns that are attributes but
    for capitals would be a field (file and column, by the field), and `absent` those of `ignore` that no row had.
    """

    def __init__(self, delivery: Delivery, config: IngestConfig) -> None:
        self._delivery = delivery
        self._config = config
        self._clean = words_of_html if config.html else clean
        self.accepted: set[str] = set()
        self.refused: set[str] = set()  # delivered, but unusable: such an item is kept as it was
        self.rows: Counter[str] = Counter()
        self.refused_rows: Counter[str] = Counter()
        self.alike: dict[str, tuple[str, str]] = {}
        self.absent = set(config.columns.ignore)

    def batches(self) -> Iterator[tuple[list[ItemDraft], list[Refusal]]]:
        """Yield drafts and refusals, at most `commit_rows` rows, 2,048 pictures or 64 MiB of them at a time."""
        drafts: list[ItemDraft] = []
        refusals: list[Refusal] = []
        pictures = picture_bytes = 0
        for source in self._delivery.catalog:
            for row in read_rows(source, _needed(self._delivery.columns)):
                self.rows[source.name] += 1
                result = row if isinstance(row, Refusal) else self._draft(source, row)
                if isinstance(result, Refusal):
                    self.refused_rows[source.name] += 1
                    refusals.append(result)
                else:
                    drafts.append(result)
                    pictures += result.picture is not None
                    picture_bytes += len(result.picture) if isinstance(result.picture, bytes) else 0
                rows = len(drafts) + len(refusals)
                if (
                    rows >= self._config.commit_rows
                    or pictures >= _BATCH_PICTURES
                    or picture_bytes > _BATCH_PICTURE_BYTES
                ):
                    yield drafts, refusals
                    drafts, refusals = [], []
                    pictures = picture_bytes = 0
        if drafts or refusals:
            yield drafts, refusals

    def _draft(self, source: SourceFile, row: Row) -> ItemDraft | Refusal:
        number, values = row
        columns = self._delivery.columns
        self._note_columns(source, values)
        try:
            item_id = id_text(values.get(columns.item_id))
        except BadValueError as error:
            return Refusal(source.name, number, columns.item_id, None, error.reason, error.detail)
        if item_id in self.accepted:
            detail = "an earlier row of this delivery has this id and was taken; give each item one row"
            return Refusal(source.name, number, columns.item_id, item_id, "duplicate_id", detail)
        draft = _draft(source, number, item_id, values, columns, self._clean)
        if long_field := _too_long(draft, columns, self._config.max_text_chars):
            self.refused.add(item_id)
            detail = f"over {self._config.max_text_chars:,} characters (ingest.max_text_chars); shorten it"
            return Refusal(source.name, number, long_field, item_id, "text_too_long", detail)
        self.accepted.add(item_id)
        return draft

    def _note_columns(self, source: SourceFile, values: Mapping[str, object]) -> None:
        self.absent.difference_update(values)
        columns = self._delivery.columns
        for field in _FIELDS:
            if (column := getattr(columns, field)) not in values:
                for other in (column.capitalize(), column.upper()):
                    if other in values and other not in columns.ignore:
                        self.alike.setdefault(field, (source.name, other))


def _draft(
    source: SourceFile, number: int, item_id: str, values: Mapping[str, object], columns: CatalogColumns, clean: Clean
) -> ItemDraft:
    title = plain_text(values.get(columns.title), " ", clean)
    description = plain_text(values.get(columns.description), "\n", clean)
    known = {columns.item_id, columns.title, columns.description, columns.image, *columns.ignore}
    attributes = {name: value for name, value in values.items() if name not in known}
    in_order, sorted_ = attributes_json(attributes, clean)
    return ItemDraft(
        source.name,
        number,
        item_id,
        title,
        description,
        in_order,
        None if title is None else digest_of_text(title),
        None if description is None else digest_of_text(description),
        None if sorted_ is None else digest_of_text(sorted_),
        picture_given(values.get(columns.image)),
    )


def picture_given(value: object) -> str | bytes | None:
    """Return the picture that a value names, text or bytes: of a list its first, of a dict its largest."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        value = [value.get(key) for key in _PICTURE_KEYS]
    if isinstance(value, list | tuple):
        return next((given for part in value if (given := picture_given(part)) is not None), None)
    return None


def _too_long(draft: ItemDraft, columns: CatalogColumns, max_chars: int) -> str | None:
    texts = {columns.title: draft.title, columns.description: draft.description, "attributes": draft.attributes}
    return next((name for name, text in texts.items() if text is not None and len(text) > max_chars), None)


def _needed(columns: CatalogColumns) -> dict[str, str]:
    """Return the columns that must be there: the id, and what the config names itself."""
    named = {"item_id"} | (columns.model_fields_set & set(_FIELDS))
    return {f"columns.{key}": getattr(columns, key) for key in sorted(named)}
