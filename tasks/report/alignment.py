"""How training brought the views together: retrieval between them, alignment and uniformity, a picture of both."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from markupsafe import Markup

from dmesr_model.features import ABSENT
from tasks.evaluation.content import unit_rows
from tasks.report.figures import COLOURS, Dot, scatter_plot
from tasks.report.sources import Sources

_CATEGORIES = COLOURS - 1  # the last colour is for all others
OTHER = "other"


@dataclass(frozen=True)
class Pair:
    """Two views of the same items, before (as embedded) and after (as the trained model adapts them).

    Args:
        recall: share of items whose one view finds its other view first, (before, after); the mean of both directions.
        distance: mean squared distance of an item's two unit vectors (alignment), 0 to 4.
        spread: uniformity of both views together; lower is more spread.
    """

    names: tuple[str, str]
    items: int
    recall: tuple[float, float]
    distance: tuple[float, float]
    spread: tuple[float, float]
    before: Markup
    after: Markup


@dataclass(frozen=True)
class Alignment:
    """Each pair of views, and what the colours of the pictures stand for."""

    pairs: Sequence[Pair]
    colours: Sequence[tuple[int, str]]
    coloured_by: str | None


def alignment_of(sources: Sources, most: int) -> Alignment | None:
    """Return what became of the views of `most` items at the most; None where the model aligns none."""
    model = sources.model
    if model is None or model.config.views is None or len(model.config.views) < 2:
        return None
    coarse_NV = sources.features.select_views(model.config.views)
    places = list(combinations(range(len(model.config.views)), 2))
    chosen = {place: _some((coarse_NV[:, place] != ABSENT).all(axis=1), most) for place in places}
    shown = {place: rows for place, rows in chosen.items() if len(rows) > 2}
    if not shown:
        return None
    attribute, category_of = _categories(sources, np.unique(np.concatenate(list(shown.values()))))
    colours = [name for name, _ in Counter(category_of.values()).most_common() if name != OTHER][:_CATEGORIES]
    pairs = [_pair(sources, coarse_NV, place, rows, category_of, colours) for place, rows in shown.items()]
    legend = list(enumerate(colours))
    if any(category not in colours for category in category_of.values()):
        legend.append((_CATEGORIES, OTHER))
    return Alignment(pairs, legend, attribute)


def _pair(
    sources: Sources,
    coarse_NV: np.ndarray,
    place: tuple[int, int],
    rows: np.ndarray,
    category_of: dict[str, str],
    colours: list[str],
) -> Pair:
    assert sources.model is not None and sources.model.config.views is not None
    texts_N2 = coarse_NV[rows][:, list(place)]
    embedded = [unit_rows(np.asarray(sources.features.vectors_UE[texts_N2[:, side]])) for side in (0, 1)]
    adapted_NVD = _adapted(sources, rows)
    trained = [unit_rows(adapted_NVD[:, view]) for view in place]
    names = [category_of.get(sources.features.item_ids[row], OTHER) for row in rows]
    colour_N = [colours.index(name) if name in colours else _CATEGORIES for name in names]
    first, second = (sources.model.config.views[view] for view in place)
    return Pair(
        names=(first, second),
        items=len(rows),
        recall=(_recall(embedded, texts_N2), _recall(trained, texts_N2)),
        distance=(_distance(embedded), _distance(trained)),
        spread=(_spread(embedded), _spread(trained)),
        before=_picture(embedded, colour_N, f"{first} and {second} as embedded"),
        after=_picture(trained, colour_N, f"{first} and {second} as the trained model sees them"),
    )


def _adapted(sources: Sources, rows: np.ndarray) -> np.ndarray:
    """Coarse tokens of the trained model, [n, V, d]."""
    import torch

    from dmesr_model.encoding import gatherer_for

    assert sources.model is not None
    sources.model.eval()
    with torch.no_grad():
        items = gatherer_for(sources.model, sources.features).gather(rows + 1)
        return sources.model.items.adapt_views(items).numpy()


def _recall(sides: Sequence[np.ndarray], texts_N2: np.ndarray) -> float:
    """R@1 in both directions; finding an item of the same text is finding it."""
    cosine_NN = sides[0] @ sides[1].T
    forward = texts_N2[cosine_NN.argmax(axis=1), 1] == texts_N2[:, 1]
    backward = texts_N2[cosine_NN.argmax(axis=0), 0] == texts_N2[:, 0]
    return float((forward.mean() + backward.mean()) / 2)


def _distance(sides: Sequence[np.ndarray]) -> float:
    import torch

    from dmesr_model.alignment import mean_squared_distance

    return mean_squared_distance(*(torch.from_numpy(side) for side in sides))


def _spread(sides: Sequence[np.ndarray]) -> float:
    import torch

    from dmesr_model.alignment import uniformity

    return uniformity(torch.from_numpy(np.concatenate(sides)))


def _picture(sides: Sequence[np.ndarray], colour_N: Sequence[int], description: str) -> Markup:
    """Both views in the plane of their two principal components, the second view as rings."""
    vectors = np.concatenate(sides).astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ components[:2].T
    count = len(sides[0])
    dots = [
        Dot(float(x), float(y), colour_N[place % count], hollow=place >= count) for place, (x, y) in enumerate(plane)
    ]
    return scatter_plot(dots, f"Two-dimensional picture of {count} items: {description}")


def _some(wanted_N: np.ndarray, most: int) -> np.ndarray:
    """Positions of wanted items, evenly spread where there are more than `most`."""
    rows = np.flatnonzero(wanted_N)
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(int)]


def _categories(sources: Sources, rows: np.ndarray) -> tuple[str | None, dict[str, str]]:
    """Return the attribute that sorts these items best into a few groups, and each item's group."""
    items = sources.items(sources.features.item_ids[row] for row in rows)
    values: dict[str, dict[str, str]] = {}
    for item_id, item in items.items():
        for name, value in json.loads(item["attributes"] or "{}").items():
            first = value[0] if isinstance(value, list) and value else value
            if first not in (None, "", []):
                values.setdefault(name, {})[item_id] = str(first).split(",")[0].strip()
    fitting = {name: groups for name, groups in values.items() if 2 <= len(set(groups.values())) <= len(items) / 4}
    if not fitting:
        return None, {}
    best = max(fitting, key=lambda name: _share_of_largest(fitting[name]))
    return best, fitting[best]


def _share_of_largest(groups: dict[str, str]) -> int:
    """How many items the groups that get a colour cover; more than one group is wanted, so the largest counts half."""
    sizes = [size for _, size in Counter(groups.values()).most_common(_CATEGORIES)]
    return sum(sizes) - sizes[0] // 2
