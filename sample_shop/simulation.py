"""The whole made world: the catalog on two days, its shoppers, and what they bought."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sample_shop.catalog import (
    CatalogConfig,
    CatalogItem,
    build_catalog,
    damage_pictures,
    list_items,
    photographed_again,
    rewritten,
)
from sample_shop.shoppers import (
    DAY_S,
    Event,
    Market,
    Shopper,
    ShopperConfig,
    build_market,
    draw_shoppers,
    draw_styles,
    draw_timestamps,
    history_lengths,
    narrowed,
    shop,
)


@dataclass(frozen=True)
class TonightConfig:
    """What the second delivery changes."""

    new_items: int = 30
    new_descriptions: int = 3
    new_pictures: int = 2
    gone_items: int = 3
    broken_pictures: int = 2  # among the new items
    returning_shoppers: int = 250
    new_shoppers: int = 40
    most_purchases: int = 3
    new_item_lift: float = 1.0  # log-odds by which shoppers prefer the new arrivals


@dataclass(frozen=True)
class ShopConfig:
    """The sample shop: everything follows from this."""

    seed: int = 20_260
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    shoppers: ShopperConfig = field(default_factory=ShopperConfig)
    tonight: TonightConfig = field(default_factory=TonightConfig)


@dataclass(frozen=True)
class World:
    """Both deliveries and the truth behind them. Event items count through `listed`: first day's, then new ones."""

    day0: tuple[CatalogItem, ...]
    tonight: tuple[CatalogItem, ...]
    listed: tuple[CatalogItem, ...]
    day0_events: tuple[Event, ...]
    tonight_events: tuple[Event, ...]
    shoppers: tuple[Shopper, ...]
    market: Market


def simulate(config: ShopConfig) -> World:
    """The world of a config; the same config gives the same world."""
    day0 = build_catalog(config.catalog, config.seed)
    rng = np.random.default_rng([config.seed, 10])
    new = list_items(len(day0), config.tonight.new_items, config.catalog, config.seed)
    new = damage_pictures(new, config.tonight.broken_pictures, rng)
    gone, tonight = _next_snapshot(day0, new, config, rng)
    listed = [*day0, *new]
    styles = draw_styles(config.shoppers, rng)
    market = build_market([item.product for item in listed], styles, config.shoppers, rng)
    first_day = narrowed(market, range(len(day0)))
    shoppers, day0_events = _first_histories(first_day, config, np.random.default_rng([config.seed, 11]))
    on_sale = set(range(len(listed))) - gone
    second_day = narrowed(market, on_sale, range(len(day0), len(listed)), config.tonight.new_item_lift)
    shoppers, tonight_events = _new_events(shoppers, second_day, config, np.random.default_rng([config.seed, 12]))
    return World(
        tuple(day0), tuple(tonight), tuple(listed), _by_time(day0_events), _by_time(tonight_events), tuple(shoppers),
        market,
    )  # fmt: skip


def _next_snapshot(
    day0: list[CatalogItem], new: list[CatalogItem], config: ShopConfig, rng: np.random.Generator
) -> tuple[set[int], list[CatalogItem]]:
    """Numbers of the items that are gone, and tonight's full catalog."""
    changes = config.tonight
    gone = set(rng.choice(len(day0), size=changes.gone_items, replace=False).tolist())
    sound = [i for i, item in enumerate(day0) if i not in gone and item.damage is None]
    complete = [i for i in sound if day0[i].picture_seed is not None and day0[i].description is not None]
    chosen = rng.choice(complete, size=changes.new_descriptions + changes.new_pictures, replace=False).tolist()
    snapshot = list(day0)
    for i in chosen[: changes.new_descriptions]:
        snapshot[i] = rewritten(day0[i], config.seed)
    for i in chosen[changes.new_descriptions :]:
        snapshot[i] = photographed_again(day0[i], config.seed)
    kept = [item for i, item in enumerate(snapshot) if i not in gone]
    return gone, [*kept, *new]


def _first_histories(market: Market, config: ShopConfig, rng: np.random.Generator) -> tuple[list[Shopper], list[Event]]:
    """All shoppers with the purchases of the days before the first delivery."""
    settings = config.shoppers
    start = settings.last_second - settings.days * DAY_S
    newcomers = draw_shoppers(0, settings.shoppers, settings, rng)
    shoppers, events = [], []
    for newcomer, count in zip(newcomers, history_lengths(settings.shoppers, settings, rng), strict=True):
        times = draw_timestamps(count, start, settings.last_second, rng)
        shopper, purchases = shop(newcomer, market, times, settings, rng)
        shoppers.append(shopper)
        events += purchases
    return shoppers, events


def _new_events(
    shoppers: Sequence[Shopper], market: Market, config: ShopConfig, rng: np.random.Generator
) -> tuple[list[Shopper], list[Event]]:
    """The shoppers and some new ones after one more day, and that day's purchases."""
    settings, changes = config.shoppers, config.tonight
    everyone = [*shoppers, *draw_shoppers(len(shoppers), changes.new_shoppers, settings, rng)]
    returning = rng.choice(len(shoppers), size=changes.returning_shoppers, replace=False).tolist()
    events = []
    for i in [*returning, *range(len(shoppers), len(everyone))]:
        count = int(rng.integers(1, changes.most_purchases + 1))
        times = np.sort(rng.integers(settings.last_second, settings.last_second + DAY_S, size=count)).tolist()
        everyone[i], purchases = shop(everyone[i], market, times, settings, rng)
        events += purchases
    return everyone, events


def _by_time(events: list[Event]) -> tuple[Event, ...]:
    return tuple(sorted(events, key=lambda event: event.timestamp))
