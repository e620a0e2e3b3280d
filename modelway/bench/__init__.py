"""Measures what Modelway costs, beside its upstream and beside nginx, all on loopback."""
