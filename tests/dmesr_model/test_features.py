"""Item features: what is stored comes back, and what cannot be used is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from dmesr_model import features as features_module
from dmesr_model.features import ABSENT, ItemFeatures


def test_saved_features_come_back_mapped(toy_features, tmp_path):
    features = toy_features()
    features.save(tmp_path)
    opened = ItemFeatures.open(tmp_path)
    assert opened.item_ids == features.item_ids
    assert opened.views == ("image", "text")
    assert isinstance(opened.vectors_UE, np.memmap)
    for name in ("vectors_UE", "coarse_index_NV", "segment_index_NL"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(features, name))


def test_an_open_folder_keeps_its_vectors_when_another_is_saved_in_its_place(toy_features, tmp_path):
    before, after = toy_features(), toy_features(seed=1)
    before.save(tmp_path)
    opened = ItemFeatures.open(tmp_path)
    after.save(tmp_path)
    np.testing.assert_array_equal(opened.vectors_UE, before.vectors_UE)
    reopened = ItemFeatures.open(tmp_path)
    replace(reopened, item_ids=tuple(f"new-{position}" for position in range(24))).save(tmp_path)  # from its own files
    np.testing.assert_array_equal(ItemFeatures.open(tmp_path).vectors_UE, after.vectors_UE)
    assert not list(tmp_path.glob("*.partial"))


def test_blocks_of_a_slice_of_a_map_are_its_own_rows(toy_features, tmp_path):
    features = toy_features()
    np.save(tmp_path / "table.npy", np.concatenate([np.full((5, 12), np.nan, np.float32), features.vectors_UE]))
    sliced = replace(features, vectors_UE=np.load(tmp_path / "table.npy", mmap_mode="r")[5:])
    sliced.check_finite()
    ((_, block_RE),) = sliced.read_blocks()
    np.testing.assert_array_equal(block_RE, features.vectors_UE)


@pytest.mark.parametrize(
    ("row", "source"), [(0, "item-0.*view 'image'"), (3, "item-0.*segment 1"), (11, "item-2.*'text'")]
)
def test_nan_names_the_item_and_the_source(toy_features, tmp_path, row, source, monkeypatch):
    features = toy_features()  # rows of item n: 5n image, 5n + 1 text, 5n + 2 ... 5n + 4 segments
    features.vectors_UE[row, 1] = np.nan
    features.save(tmp_path)
    with pytest.raises(ValueError, match=source):
        ItemFeatures.open(tmp_path).check_finite()
    monkeypatch.setattr(features_module, "_ROWS_PER_BLOCK", 2)
    with pytest.raises(ValueError, match=source):
        ItemFeatures.open(tmp_path).check_finite()


def test_finite_features_pass(toy_features, tmp_path):
    toy_features().save(tmp_path)
    ItemFeatures.open(tmp_path).check_finite()


def test_layout_is_checked(toy_features):
    features = toy_features()
    with pytest.raises(ValueError, match="twice"):
        replace(features, item_ids=("item-1",) * 24)
    with pytest.raises(ValueError, match="coarse_index_NV must be"):
        replace(features, views=("image",))
    with pytest.raises(ValueError, match="points outside"):
        replace(features, segment_index_NL=np.full((24, 3), 120, np.int32))
    with pytest.raises(ValueError, match="points outside"):
        replace(features, coarse_index_NV=np.full((24, 2), ABSENT - 1, np.int32))


@pytest.mark.parametrize(
    ("name", "convert", "message"),
    [
        ("vectors_UE", lambda table: table.astype(np.float16), r"vectors_UE must be float32.*astype\('float32'\)"),
        ("segment_index_NL", lambda table: table.astype(np.float64), "segment_index_NL must be int32.*is float64"),
        (
            "coarse_index_NV",
            lambda table: table[:, 0],
            r"coarse_index_NV must be int32 with two axes, is int32 \(24,\)",
        ),
        ("coarse_index_NV", lambda table: table.tolist(), "coarse_index_NV must be a NumPy array, is list"),
    ],
)
def test_tables_of_another_kind_are_refused_by_name(toy_features, name, convert, message):
    features = toy_features()
    with pytest.raises(ValueError, match=message):
        replace(features, **{name: convert(getattr(features, name))})


def test_index_tables_may_have_wider_integers(toy_features):
    features = toy_features()
    assert replace(features, coarse_index_NV=features.coarse_index_NV.astype(np.int64)).item_count == 24


def test_views_are_selected_by_name(toy_features):
    features = toy_features()
    np.testing.assert_array_equal(features.select_views(("text", "image")), features.coarse_index_NV[:, ::-1])
    assert features.select_views(()).shape == (24, 0)
    with pytest.raises(ValueError, match="joint"):
        features.select_views(("joint",))


def test_absent_is_not_a_row(toy_features):
    assert (toy_features().segment_index_NL[3] == ABSENT).all()
