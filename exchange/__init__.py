"""The plant: a small, complete exchange as a deterministic machine, and the adapters that run it as processes."""

from exchange.adapters.compiled import overlay

overlay(__path__)  # the door of the package is the one place that every program that uses it passes
