"""Shows that the simulated signal is real: `python -m sample_shop.signal`.

Three rankers of growing knowledge, tested on every shopper's last purchase against the whole catalog: popularity; a
small sequence model that knows items by number alone; the same model that also sees the true attributes.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn
from torch.nn.functional import cross_entropy, dropout

from sample_shop.attributes import FIELDS, Product
from sample_shop.simulation import ShopConfig, World, simulate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SignalConfig:
    """The same effort for both models; the best epoch on the last purchase but one is the one tested."""

    width: int = 64
    window: int = 8  # purchases that a model looks back on
    epochs: int = 18
    batch: int = 256
    rate: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.2


@dataclass(frozen=True)
class Windows:
    """What came before (item numbers + 1, newest first, 0 for nothing) and what came next."""

    before_NW: np.ndarray
    target_N: np.ndarray


class RecencyModel(nn.Module):
    """Scores all items by weighted means over the last ones, with one learnt weight for each step back.

    By number: the mean of learnt item vectors against every item's vector. By attributes, where it sees them: how often
    each value occurred lately, against every item's values, through one learnt table of value pairs.
    """

    def __init__(self, items: int, values_IA: torch.Tensor | None, config: SignalConfig) -> None:
        super().__init__()
        self.identity = nn.Embedding(items, config.width)
        nn.init.normal_(self.identity.weight, std=0.05)
        self.recency = nn.Parameter(torch.linspace(1.0, -1.0, config.window).repeat(2, 1))
        self.mix = nn.Linear(config.width, config.width)
        self.bias = nn.Parameter(torch.zeros(items))
        self.values_IA = values_IA
        values = 0 if values_IA is None else values_IA.shape[1]
        self.affinity = nn.Parameter(torch.eye(values) * 0.3)
        self.dropout = config.dropout

    def forward(self, before_NW: torch.Tensor) -> torch.Tensor:
        """Scores [N, items]."""
        vectors_ID = self.identity.weight
        history_ND = self._mean(before_NW, vectors_ID, self.recency[0])
        query_ND = history_ND + self.mix(dropout(history_ND, self.dropout, self.training))
        scores_NI = query_ND @ vectors_ID.T * 4 + self.bias
        if self.values_IA is None:
            return scores_NI
        profile_NA = self._mean(before_NW, self.values_IA, self.recency[1])
        return scores_NI + 5 * profile_NA @ self.affinity @ self.values_IA.T

    def _mean(self, before_NW: torch.Tensor, table_IX: torch.Tensor, recency_W: torch.Tensor) -> torch.Tensor:
        """Weighted mean of the rows of `table_IX` that each window names."""
        padded = torch.cat([table_IX.new_zeros(1, table_IX.shape[1]), table_IX])
        weights_NW = torch.where(before_NW > 0, recency_W.exp(), 0.0)
        weights_NW = weights_NW / weights_NW.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return (padded[before_NW] * weights_NW[..., None]).sum(dim=1)


def attribute_table(products: Sequence[Product]) -> torch.Tensor:
    """Which values each item has: 0 or 1, [items, values]."""
    names = [[f"{field}={product.value(field)}" for field in FIELDS] for product in products]
    vocabulary = sorted({name for row in names for name in row})
    return torch.tensor([[float(name in row) for name in vocabulary] for row in names])


def ndcg_at_10(scores_NI: np.ndarray, before: Sequence[Sequence[int]], target_N: np.ndarray) -> float:
    """Mean over rows of 1 / log2(1 + rank) where the target's rank among unseen items is at most 10; ties lose."""
    scores = scores_NI.copy()
    for row, seen in enumerate(before):
        scores[row, list(seen)] = -np.inf
    own = scores[np.arange(len(target_N)), target_N][:, None]
    ranks = (scores >= own).sum(axis=1)
    return float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0).mean())


def measure(world: World, seed: int, config: SignalConfig) -> dict[str, float]:
    """Test NDCG@10 of the three rankers on one world."""
    histories = _histories(world)
    items = len(world.day0)
    last = _windows_at(histories, -1, config.window)
    counts = np.bincount([i for history in histories for i in history[:-1]], minlength=items).astype(np.float64)
    seen = [history[:-1] for history in histories]
    popular = ndcg_at_10(np.repeat(counts[None], len(histories), 0), seen, last.target_N)
    attributes = attribute_table([item.product for item in world.day0])
    return {
        "popularity": popular,
        "ids": _trained_ndcg(histories, items, None, seed, config),
        "ids and attributes": _trained_ndcg(histories, items, attributes, seed, config),
    }


def main(
    seeds: Annotated[int, typer.Option(help="Worlds to simulate.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Print test NDCG@10 of the three rankers for each seed, and the mean."""
    torch.set_num_threads(threads)
    results = []
    for offset in range(seeds):
        seed = ShopConfig().seed + offset
        results.append(measure(simulate(ShopConfig(seed=seed)), seed, SignalConfig()))
        typer.echo(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in results[-1].items()))
    means = {name: float(np.mean([result[name] for result in results])) for name in results[0]}
    spreads = {name: float(np.std([result[name] for result in results], ddof=1)) for name in results[0]}
    typer.echo("mean ± sd: " + ", ".join(f"{name} {means[name]:.4f} ± {spreads[name]:.4f}" for name in means))


def _histories(world: World) -> list[list[int]]:
    """Every shopper's first-day purchases, oldest first."""
    histories: dict[str, list[int]] = {}
    for event in world.day0_events:
        histories.setdefault(event.user_id, []).append(event.item)
    return list(histories.values())


def _windows_at(histories: Sequence[list[int]], position: int, window: int) -> Windows:
    """The window before each history's item at `position`, counted from the end."""
    before = [[item + 1 for item in history[:position][::-1][:window]] for history in histories]
    padded = np.array([row + [0] * (window - len(row)) for row in before])
    return Windows(padded, np.array([history[position] for history in histories]))


def _training_windows(histories: Sequence[list[int]], window: int) -> Windows:
    """Every purchase but the first and the last two is something to predict."""
    prefixes = [history[: end + 1] for history in histories for end in range(1, len(history) - 2)]
    return _windows_at(prefixes, -1, window)


def _trained_ndcg(
    histories: list[list[int]], items: int, attributes: torch.Tensor | None, seed: int, config: SignalConfig
) -> float:
    """Test NDCG@10 at the epoch that is best in validation."""
    torch.manual_seed(seed)
    model = RecencyModel(items, attributes, config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=config.weight_decay)
    train = _training_windows(histories, config.window)
    rng = np.random.default_rng(seed)
    validation, test = -1.0, 0.0
    for _ in range(config.epochs):
        _train_epoch(model, optimiser, train, config.batch, rng)
        now = _ndcg(model, histories, -2, config)
        if now > validation:
            validation, test = now, _ndcg(model, histories, -1, config)
    return test


def _train_epoch(
    model: RecencyModel, optimiser: torch.optim.Optimizer, train: Windows, batch: int, rng: np.random.Generator
) -> None:
    model.train()
    order = rng.permutation(len(train.target_N))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        scores = model(torch.from_numpy(train.before_NW[rows]))
        cross_entropy(scores, torch.from_numpy(train.target_N[rows])).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def _ndcg(model: RecencyModel, histories: list[list[int]], position: int, config: SignalConfig) -> float:
    model.eval()
    windows = _windows_at(histories, position, config.window)
    with torch.no_grad():
        scores = model(torch.from_numpy(windows.before_NW)).numpy()
    return ndcg_at_10(scores, [history[:position] for history in histories], windows.target_N)


if __name__ == "__main__":
    typer.run(main)
