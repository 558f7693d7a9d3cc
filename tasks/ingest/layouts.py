"""From the config's layout to the delivery it means."""

from tasks.ingest.amazon_layout import amazon_delivery
from tasks.ingest.config import IngestConfig
from tasks.ingest.delivery import Delivery, plain_delivery
from tasks.ingest.movielens_layout import movielens_delivery


def delivery_of(config: IngestConfig) -> Delivery:
    """Return the delivery that the config names. Raises StageError where files of the layout are missing."""
    if config.layout == "amazon_reviews_2023":
        return amazon_delivery(config)
    if config.layout == "movielens":
        return movielens_delivery(config)
    return plain_delivery(config)
