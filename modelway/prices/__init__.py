"""What models cost."""

from modelway.prices.price import NANOS, Price
from modelway.prices.prices import Prices

__all__ = ["NANOS", "Price", "Prices"]
