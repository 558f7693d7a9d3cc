"""Every table of the store: its name, its columns, its key. Column names stand here and nowhere else.

Ids: `item_id` and `user_id` are the shop's own, always strings; `item_index` (1-based, `PAD_INDEX` = 0) is the
model's and never stored. Digests are hexadecimal strings from `storage.digests`. Times are UTC with microseconds.
"""

from dataclasses import dataclass

import pyarrow as pa

ITEM_ID = "item_id"
USER_ID = "user_id"
RUN_ID = "run_id"
GENERATION_KEY = "generation_key"
SEGMENT_KEY = "segment_key"
TEXT_DIGEST = "text_digest"
ENCODER_DIGEST = "encoder_digest"
EVENT_DIGEST = "event_digest"
VECTOR = "vector"
CREATED_AT = "created_at"

_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class TableSchema:
    """A table's name, Arrow schema, and the columns that together name a row once (empty: rows have no key).

    `shares_folder`: its folder holds files that no version of it names and that stay.
    """

    name: str
    arrow: pa.Schema
    key: tuple[str, ...]
    shares_folder: bool = False


def _schema(name: str, key: tuple[str, ...], shares_folder: bool = False, **columns: pa.DataType) -> TableSchema:
    fields = [pa.field(column, data_type, nullable=column not in key) for column, data_type in columns.items()]
    return TableSchema(name, pa.schema(fields), key, shares_folder)


ITEMS = _schema(
    "items",
    (ITEM_ID,),
    item_id=pa.string(),
    title=pa.string(),  # null: the delivery had none
    description=pa.string(),
    attributes=pa.string(),  # JSON object {column: text or list of texts}, keys in the delivery's column order
    image_reference=pa.string(),  # null: no usable picture; see storage.pictures
    image_digest=pa.string(),  # digest of the picture's bytes
    title_digest=pa.string(),
    description_digest=pa.string(),
    attributes_digest=pa.string(),
    content_digest=pa.string(),  # digest of all of the above: an item changed when this did
    active=pa.bool_(),  # false: gone from the catalog; kept for its history
    first_seen_at=_TIME,
    updated_at=_TIME,
    run_id=pa.string(),
)

PICTURES = _schema(
    "pictures",
    ("source",),
    shares_folder=True,  # storage.pictures keeps the pictures themselves there
    source=pa.string(),  # a delivered picture: its path, its URL, or `bytes:` and the digest of a column's bytes
    stamp=pa.string(),  # size and time of a file: another stamp, and the file is read again; null for what can't change
    limits_digest=pa.string(),  # the limits it was checked against
    image_digest=pa.string(),  # null where there were no bytes to read
    image_reference=pa.string(),  # null: refused
    reason=pa.string(),  # why it was refused; null: it was not
    detail=pa.string(),
    size=pa.int64(),  # its bytes, to tell one that was damaged in the store; null: refused, or of an earlier version
    created_at=_TIME,
    run_id=pa.string(),
)

INTERACTIONS = _schema(
    "interactions",
    (EVENT_DIGEST,),
    event_digest=pa.int64(),  # of (user_id, item_id, timestamp): the same event delivered twice is one event
    user_id=pa.string(),
    item_id=pa.string(),
    timestamp=pa.int64(),  # milliseconds since 1970-01-01 UTC, or the delivery's order number
    file_order=pa.int64(),  # grows with every row ever stored: breaks ties in time by the order of delivery
    created_at=_TIME,
    run_id=pa.string(),
)

REJECTS = _schema(
    "rejects",
    (),
    stage=pa.string(),
    source=pa.string(),  # file name as delivered
    row=pa.int64(),  # 1-based line or row number; null where a whole file or picture is meant
    field=pa.string(),
    item_id=pa.string(),  # null where the row has no readable id
    reason=pa.string(),  # one short machine-readable word, such as `duplicate_id`
    detail=pa.string(),  # what is wrong and what to do about it, for a person
    created_at=_TIME,
    run_id=pa.string(),
)

GENERATIONS = _schema(
    "generations",
    (GENERATION_KEY,),
    generation_key=pa.string(),  # of everything that decides the answer; items that agree in it share the answer
    item_id=pa.string(),  # the item that asked first
    view=pa.string(),
    status=pa.string(),  # ok, or what is wrong: see tasks.answers
    text=pa.string(),  # null where the request failed
    text_digest=pa.string(),
    prompt_name=pa.string(),
    prompt_digest=pa.string(),
    model=pa.string(),
    engine_digest=pa.string(),  # model, revision, processor and engine settings that bear on the answer
    finish_reason=pa.string(),
    prompt_tokens=pa.int64(),
    completion_tokens=pa.int64(),
    error_kind=pa.string(),
    error_detail=pa.string(),
    attempts=pa.int64(),
    created_at=_TIME,
    run_id=pa.string(),
)

SEGMENTS = _schema(
    "segments",
    (SEGMENT_KEY, "position"),
    segment_key=pa.string(),  # of the item's own text and the segmenter's settings; equal texts share their segments
    position=pa.int64(),  # 0-based place among the item's segments
    kind=pa.string(),  # title, attribute or sentence
    text=pa.string(),
    text_digest=pa.string(),
    created_at=_TIME,
    run_id=pa.string(),
)

EMBEDDINGS = _schema(
    "embeddings",
    (TEXT_DIGEST, ENCODER_DIGEST),
    text_digest=pa.string(),  # the text embedded; generations and segments lead here
    encoder_digest=pa.string(),
    encoder=pa.string(),
    source=pa.string(),  # what asked first: image, text, joint or segment
    vector=pa.list_(pa.float32()),
    created_at=_TIME,
    run_id=pa.string(),
)

RUNS = _schema(
    "runs",
    (RUN_ID,),
    run_id=pa.string(),
    stage=pa.string(),
    status=pa.string(),  # completed or failed
    config_digest=pa.string(),
    started_at=_TIME,
    seconds=pa.float64(),
    counts=pa.string(),  # JSON object {what: how many}
    read_versions=pa.string(),  # JSON object {table: version}
    written_versions=pa.string(),
    error=pa.string(),
)

METRICS = _schema(
    "metrics",
    ("evaluation_key", "variant", "protocol", "slice", "metric", "seed"),
    evaluation_key=pa.string(),  # of the checkpoint, the split and the protocol's settings
    variant=pa.string(),  # the trained variant's name, or a baseline's
    model=pa.string(),  # the checkpoint's key; null for a baseline
    protocol=pa.string(),
    slice=pa.string(),
    metric=pa.string(),  # such as ndcg@10
    seed=pa.int64(),
    value=pa.float64(),  # null where the slice is empty
    users=pa.int64(),  # test users in the slice
    created_at=_TIME,
    run_id=pa.string(),
)

PROMOTIONS = _schema(
    "promotions",
    ("promotion_id",),
    promotion_id=pa.string(),
    model=pa.string(),  # the model judged, or set by hand
    variant=pa.string(),
    seed=pa.int64(),
    before=pa.string(),  # the model that served until then, and was compared with; null: none
    promoted=pa.bool_(),  # true: it serves from here on
    pinned=pa.bool_(),  # true: it stays until a person sets another
    reason=pa.string(),
    difference=pa.float64(),  # NDCG@10 of the model minus that of the one before; null: not compared
    low=pa.float64(),  # 95 % confidence interval of the difference
    high=pa.float64(),
    p_value=pa.float64(),  # two-sided, paired over users
    level=pa.float64(),  # what the p-value was held against
    users=pa.int64(),
    created_at=_TIME,
    run_id=pa.string(),
)

RECOMMENDATIONS = _schema(
    "recommendations",
    ("recommendation_key", USER_ID, "rank"),
    recommendation_key=pa.string(),  # of the checkpoint, histories, items on offer, settings; `listed-…`: some users
    user_id=pa.string(),
    rank=pa.int64(),  # 1 is best
    item_id=pa.string(),
    score=pa.float32(),  # inner product; where the source is popularity, the number of events
    source=pa.string(),  # model; or popularity, for a user without a history
    model=pa.string(),  # the checkpoint's key
    created_at=_TIME,
    run_id=pa.string(),
)

TABLES = (
    ITEMS,
    PICTURES,
    INTERACTIONS,
    REJECTS,
    GENERATIONS,
    SEGMENTS,
    EMBEDDINGS,
    RUNS,
    METRICS,
    PROMOTIONS,
    RECOMMENDATIONS,
)
