"""Shoppers with tastes, and what they buy: a simulation, for showing that the machinery works.

A shopper follows one style at a time. A style likes a colour and a pattern (which only pictures show), an occasion and
certain materials (which descriptions tell), certain brands and kinds. What is bought also depends on
what no content shows: how popular an item is, what others buy along with the last purchase, and the season.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sample_shop.attributes import COLOURS, KINDS, OCCASIONS, PATTERNS, SHOP_BRANDS, Product, pick

DAY_S = 86_400
_MATERIALS = tuple(sorted({material for kind in KINDS.values() for material in kind.materials}))


@dataclass(frozen=True)
class ShopperConfig:
    """The simulation's parameters. Pulls are added to an item's log-odds of being bought next."""

    shoppers: int = 2000
    shortest_history: int = 4
    mean_extra_events: float = 2.5  # geometric, on top of the shortest
    longest_history: int = 40
    days: int = 180
    last_second: int = 1_760_000_000  # end of the first delivery, unix time

    styles: int = 1000
    styles_each: int = 2
    stay: float = 0.92  # chance that a shopper keeps following the style of the last purchase
    season: float = 1.5  # how much a style's season sways which style is taken up next

    colour_pull: float = 3.0  # picture only
    pattern_pull: float = 2.5  # picture only
    occasion_pull: float = 3.0  # description only
    material_pull: float = 0.6  # description, now and then the title
    brand_pull: float = 0.4
    kind_pull: float = 0.7
    popularity_pull: float = 0.6  # times a standard normal draw for each item
    companion_share: float = 0.04  # of purchases that follow the last one by habit alone
    companions: int = 2  # items that are bought along with an item


@dataclass(frozen=True)
class Style:
    """What a style likes, and the day of the year when it is most in season."""

    colour: str
    pattern: str
    occasion: str
    materials: frozenset[str]
    brands: frozenset[str]
    kinds: frozenset[str]
    season_day: int


@dataclass(frozen=True)
class Shopper:
    """Someone with a few styles; `bought` are item numbers, oldest first."""

    user_id: str
    styles: tuple[int, ...]
    bought: tuple[int, ...] = ()


@dataclass(frozen=True)
class Event:
    """One purchase; timestamp in unix seconds."""

    user_id: str
    item: int
    timestamp: int


@dataclass(frozen=True)
class Market:
    """Everything that decides purchases.

    liking_SI: log-odds of every style for every item, popularity included; -inf for what can't be bought.
    companions_IC: item numbers bought along with an item.
    """

    styles: tuple[Style, ...]
    liking_SI: np.ndarray
    companions_IC: np.ndarray


def draw_styles(config: ShopperConfig, rng: np.random.Generator) -> tuple[Style, ...]:
    """The styles that there are in this world."""
    return tuple(
        Style(
            colour=pick(rng, tuple(COLOURS)),
            pattern=pick(rng, PATTERNS),
            occasion=pick(rng, OCCASIONS),
            materials=_some(_MATERIALS, 6, rng),
            brands=_some(SHOP_BRANDS, 5, rng),
            kinds=_some(tuple(KINDS), 5, rng),
            season_day=int(rng.integers(365)),
        )
        for _ in range(config.styles)
    )


def build_market(
    products: Sequence[Product], styles: tuple[Style, ...], config: ShopperConfig, rng: np.random.Generator
) -> Market:
    """A market in which every product can be bought."""
    popularity_I = rng.normal(size=len(products)) * config.popularity_pull
    companions_IC = rng.integers(len(products), size=(len(products), config.companions))
    matches_SI = np.array([[_pull(style, product, config) for product in products] for style in styles])
    return Market(styles, matches_SI + popularity_I, companions_IC)


def narrowed(market: Market, available: Collection[int], lift: Collection[int] = (), by: float = 0.0) -> Market:
    """The market with only some items on sale, those in `lift` more popular by so many log-odds."""
    liking_SI = np.full_like(market.liking_SI, -np.inf)
    on_sale = sorted(available)
    liking_SI[:, on_sale] = market.liking_SI[:, on_sale]
    liking_SI[:, sorted(lift)] += by
    return replace(market, liking_SI=liking_SI)


def draw_shoppers(first: int, count: int, config: ShopperConfig, rng: np.random.Generator) -> list[Shopper]:
    """New shoppers, numbered from `first`, who have bought nothing yet."""
    shoppers = []
    for number in range(first, first + count):
        styles = rng.choice(config.styles, size=config.styles_each, replace=False).tolist()
        shoppers.append(Shopper(f"user-{number:05d}", tuple(styles)))
    return shoppers


def history_lengths(count: int, config: ShopperConfig, rng: np.random.Generator) -> list[int]:
    """Purchases of each shopper: many short histories, few long ones."""
    extra = rng.geometric(1 / (1 + config.mean_extra_events), size=count) - 1
    return np.minimum(config.shortest_history + extra, config.longest_history).tolist()


def shop(
    shopper: Shopper, market: Market, timestamps: Sequence[int], config: ShopperConfig, rng: np.random.Generator
) -> tuple[Shopper, list[Event]]:
    """The shopper's next purchases, one at each time; nobody buys the same item twice."""
    bought = list(shopper.bought)
    style = _take_up(shopper, market, timestamps[0], config, rng)
    for timestamp in timestamps:
        if rng.random() >= config.stay:
            style = _take_up(shopper, market, timestamp, config, rng)
        bought.append(_next_item(style, bought, market, config, rng))
    new = bought[len(shopper.bought) :]
    events = [Event(shopper.user_id, item, timestamp) for item, timestamp in zip(new, timestamps, strict=True)]
    return Shopper(shopper.user_id, shopper.styles, tuple(bought)), events


def draw_timestamps(count: int, first: int, last: int, rng: np.random.Generator) -> list[int]:
    """Times in ascending order, clustered the way visits are."""
    visits = np.sort(rng.integers(first, last - DAY_S, size=count))
    same_visit = rng.random(count) < 0.3
    for i in range(1, count):
        if same_visit[i]:
            visits[i] = visits[i - 1] + rng.integers(20, 900)
    return np.sort(visits).tolist()


def _some(values: tuple[str, ...], count: int, rng: np.random.Generator) -> frozenset[str]:
    return frozenset(values[int(i)] for i in rng.choice(len(values), size=count, replace=False))


def _pull(style: Style, product: Product, config: ShopperConfig) -> float:
    """How much a style likes a product, popularity apart."""
    look, facts = product.look, product.facts
    return (
        config.colour_pull * (look.main_colour == style.colour)
        + config.pattern_pull * (look.pattern == style.pattern)
        + config.kind_pull * (look.kind in style.kinds)
        + config.occasion_pull * (facts.occasion == style.occasion)
        + config.material_pull * (facts.material in style.materials)
        + config.brand_pull * (facts.brand in style.brands)
    )


def _take_up(shopper: Shopper, market: Market, timestamp: int, config: ShopperConfig, rng: np.random.Generator) -> int:
    """One of the shopper's styles, rather one that is in season."""
    day = timestamp / DAY_S
    phases = np.array([market.styles[s].season_day for s in shopper.styles])
    weights = np.exp(config.season * np.cos(2 * np.pi * (day - phases) / 365))
    return int(rng.choice(shopper.styles, p=weights / weights.sum()))


def _next_item(style: int, bought: list[int], market: Market, config: ShopperConfig, rng: np.random.Generator) -> int:
    if bought and rng.random() < config.companion_share:
        on_sale = [int(item) for item in market.companions_IC[bought[-1]] if np.isfinite(market.liking_SI[style, item])]
        habits = [item for item in on_sale if item not in bought]
        if habits:
            return habits[int(rng.integers(len(habits)))]
    odds = market.liking_SI[style] + rng.gumbel(size=market.liking_SI.shape[1])
    odds[bought] = -np.inf
    return int(odds.argmax())
