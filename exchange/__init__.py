"""The plant: a small, complete exchange as a deterministic machine, and the adapters that run it as processes."""
