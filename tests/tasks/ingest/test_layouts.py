import gzip
import json

import polars as pl
import pytest

from storage.schemas import INTERACTIONS, REJECTS
from tasks.stage import StageError


def test_amazon_reviews_2023(shop):
    meta = {
        "main_category": "Beauty",
        "title": "Soap",
        "average_rating": 4.5,
        "rating_number": 7,
        "features": ["Mild", "Green"],
        "description": ["For hands.", "For feet."],
        "price": "3.99",
        "images": [{"thumb": "http://x.example/t.jpg", "large": "http://x.example/l.jpg", "hi_res": None}],
        "videos": [],
        "store": "Soapy",
        "categories": ["Beauty", "Bath"],
        "details": {"Brand": "Soapy", "Best Sellers Rank": {"Beauty": 7}, "Weight": "1 lb"},
        "parent_asin": "B001",
        "bought_together": None,
    }
    path = shop.delivery / "meta_All_Beauty.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(meta).encode() + b"\n"))
    review = {"rating": 5.0, "parent_asin": "B001", "asin": "B002", "user_id": "AE1", "timestamp": 1588687728923}
    (shop.delivery / "All_Beauty.jsonl").write_text(json.dumps(review) + "\n")
    shop.ingest(layout="amazon_reviews_2023", folder=shop.delivery)
    ((item_id, title, description, attributes),) = shop.items("title", "description", "attributes")
    assert (item_id, title, description) == ("B001", "Soap", "For hands.\nFor feet.")
    assert json.loads(attributes) == {
        "main_category": "Beauty",
        "features": ["Mild", "Green"],
        "store": "Soapy",
        "categories": ["Beauty", "Bath"],
        "details": ["Brand: Soapy", "Weight: 1 lb"],
    }
    assert shop.rows(INTERACTIONS, "user_id", "item_id", "timestamp") == [("AE1", "B001", 1588687728923)]
    assert shop.rejects() == [(None, "images", None, "fetching_off")]


def test_amazon_rating_only_csv_and_parquet_meta(shop):
    images = {"hi_res": [None, "http://x.example/2.jpg"], "large": ["http://x.example/1.jpg", None]}
    details = ['{"Best Sellers Rank": {"Beauty": 7}, "Brand": "Soapy"}', '{"Brand":', "[" * 99 + "]" * 99]
    pl.DataFrame(
        {
            "parent_asin": ["B001", "B002", "B003"],
            "title": ["Soap", "Cup", "Mat"],
            "images": [images] * 3,
            "details": details,
        }
    ).write_parquet(shop.delivery / "raw_meta_All_Beauty.parquet")
    (shop.delivery / "All_Beauty.csv").write_text("user_id,parent_asin,rating,timestamp\nAE1,B001,5.0,1588687728923\n")
    shop.ingest(layout="amazon_reviews_2023", folder=shop.delivery)
    assert [(title, json.loads(attributes)) for _, title, attributes in shop.items("title", "attributes")] == [
        ("Soap", {"details": ["Brand: Soapy"]}),
        ("Cup", {"details": details[1]}),  # broken, so that it stays the text that it is
        ("Mat", {"details": details[2]}),
    ]
    assert shop.rows(INTERACTIONS, "user_id", "timestamp") == [("AE1", 1588687728923)]


def test_amazon_folder_that_lacks_reviews(shop):
    (shop.delivery / "meta_X.jsonl").write_text("{}\n")
    with pytest.raises(StageError, match=r"1 meta_\* files and 0 files of reviews"):
        shop.plan(layout="amazon_reviews_2023", folder=shop.delivery)


def test_movielens_100k(shop):
    flags = ["0"] * 19
    flags[1] = flags[5] = "1"  # Action, Comedy
    line = "|".join(["1", "Café (1995)", "01-Jan-1995", "", "http://imdb.example", *flags])
    (shop.delivery / "u.item").write_bytes(line.encode("latin-1") + b"\n")
    (shop.delivery / "u.data").write_text("196\t1\t3\t881250949\n22\t1\t1\t878887116\n")
    shop.ingest(layout="movielens", folder=shop.delivery)
    ((item_id, title, attributes),) = shop.items("title", "attributes")
    assert (item_id, title) == ("1", "Café (1995)")
    assert json.loads(attributes) == {"release_date": "01-Jan-1995", "genres": ["Action", "Comedy"]}
    assert shop.rows(INTERACTIONS, "file_order", "user_id", "timestamp") == [
        (0, "196", 881_250_949_000),
        (1, "22", 878_887_116_000),
    ]


def test_movielens_1m(shop):
    (shop.delivery / "movies.dat").write_bytes("1::Café: A (1995)::Animation|Children's\n".encode("latin-1"))
    (shop.delivery / "ratings.dat").write_text("1::1::5::978300760\n")
    shop.ingest(layout="movielens", folder=shop.delivery)
    ((_, title, attributes),) = shop.items("title", "attributes")
    assert title == "Café: A (1995)"
    assert json.loads(attributes) == {"genres": ["Animation", "Children's"]}
    assert shop.rows(INTERACTIONS, "timestamp") == [(978_300_760_000,)]


def test_movielens_latest(shop):
    (shop.delivery / "movies.csv").write_text(
        'movieId,title,genres\n1,"American President, The (1995)",Comedy|Drama\n2,B,(no genres listed)\n'
    )
    (shop.delivery / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,1112486027\n")
    shop.ingest(layout="movielens", folder=shop.delivery)
    assert shop.items("title", "attributes") == [
        ("1", "American President, The (1995)", '{"genres": ["Comedy", "Drama"]}'),
        ("2", "B", None),
    ]
    assert shop.rows(INTERACTIONS, "user_id", "item_id", "timestamp") == [("1", "1", 1_112_486_027_000)]


def movielens_of_one_film(folder, kind):
    if kind == "100K":
        flags = ["0", "1"] + ["0"] * 17  # Action
        (folder / "u.item").write_text("|".join(["1", "A", "01-Jan-1995", "", "", *flags]) + "\n")
        (folder / "u.data").write_text("196\t1\t3\t881250949\n")
    elif kind == "1M":
        (folder / "movies.dat").write_text("1::A::Action\n")
        (folder / "ratings.dat").write_text("196::1::3::881250949\n")
    else:
        (folder / "movies.csv").write_text("movieId,title,genres\n1,A,Action\n")
        (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n196,1,3,881250949\n")


@pytest.mark.parametrize("kind", ["100K", "1M", "latest"])
def test_movielens_takes_the_settings_that_it_leaves_open(shop, kind):
    movielens_of_one_film(shop.delivery, kind)
    own = {"layout": "movielens", "folder": shop.delivery}
    with pytest.raises(StageError, match=r"line 1: over 8 bytes \(ingest\.max_line_bytes\)"):
        shop.plan(**own, max_line_bytes=8)
    shop.ingest(**own, columns={"ignore": ["genres", "release_date"]})
    assert shop.items("title", "attributes") == [("1", "A", None)]


@pytest.mark.parametrize(
    ("kind", "settings", "names"),
    [
        ("100K", {"columns": {"item_id": "sku"}}, "ingest.columns.item_id"),
        ("100K", {"encoding": "utf-8", "delimiter": "|"}, "ingest.delimiter, ingest.encoding"),
        ("1M", {"quoting": True}, "ingest.quoting"),
        ("latest", {"event_columns": {"user_id": "user_id"}}, "ingest.event_columns.user_id"),
    ],
)
def test_movielens_refuses_settings_that_it_decides(shop, kind, settings, names):
    movielens_of_one_film(shop.delivery, kind)
    with pytest.raises(StageError, match=f"^{names}: layout movielens decides this itself; take the setting out"):
        shop.plan(layout="movielens", folder=shop.delivery, **settings)


def test_a_setting_as_the_layout_decides_it_is_taken(shop):
    movielens_of_one_film(shop.delivery, "latest")
    shop.ingest(layout="movielens", folder=shop.delivery, columns={"item_id": "movieId"}, delimiter=",")
    assert shop.items("title") == [("1", "A")]


def test_amazon_refuses_other_columns(shop):
    (shop.delivery / "meta_X.jsonl").write_text('{"parent_asin": "B001", "title": "Soap"}\n')
    (shop.delivery / "X.csv").write_text("user_id,parent_asin,rating,timestamp\nAE1,B001,5.0,1588687728923\n")
    own = {"layout": "amazon_reviews_2023", "folder": shop.delivery}
    with pytest.raises(
        StageError, match=r"^ingest\.columns\.image, ingest\.columns\.title: layout amazon_reviews_2023"
    ):
        shop.plan(**own, columns={"title": "name", "image": "photo"})
    with pytest.raises(StageError, match=r"^ingest\.event_columns\.timestamp: layout amazon_reviews_2023"):
        shop.plan(**own, event_columns={"timestamp": "sort_timestamp"})


@pytest.mark.parametrize("layout", ["movielens", "plain"])
def test_a_folder_of_parquet_files(shop, layout):
    pl.DataFrame({"item_id": ["1"], "title": ["A"]}).write_parquet(shop.delivery / "items.parquet")
    pl.DataFrame({"user_id": ["u"], "item_id": ["1"], "timestamp": [881_250_949]}).write_parquet(
        shop.delivery / "interactions.parquet"
    )
    shop.ingest(layout=layout, folder=shop.delivery)
    assert shop.items("title") == [("1", "A")]
    assert shop.rows(INTERACTIONS, "timestamp") == [(881_250_949_000,)]


def test_folders_without_the_layouts_files(shop):
    with pytest.raises(StageError, match=r"no MovieLens folder: it holds neither u\.item"):
        shop.plan(layout="movielens", folder=shop.delivery)
    with pytest.raises(StageError, match="must hold one file catalog"):
        shop.plan(folder=shop.delivery)
    with pytest.raises(StageError, match="is no folder"):
        shop.plan(folder=shop.delivery / "nothing")
    with pytest.raises(StageError, match=r"the extension '\.txt' tells no format"):
        shop.plan(catalog=shop.delivery / "catalog.txt")


def test_files_of_the_same_name_are_told_apart(shop):
    for part in ("one", "two"):
        (shop.delivery / part).mkdir()
        (shop.delivery / part / "catalog.jsonl").write_text(f'{{"item_id": "{part}"}}\n{{"item_id": "same"}}\n')
    shop.ingest(catalog=sorted(shop.delivery.glob("*/catalog.jsonl")))
    assert shop.rows(REJECTS, "source", "row", "reason") == [("two/catalog.jsonl", 2, "duplicate_id")]
