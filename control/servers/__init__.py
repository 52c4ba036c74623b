"""Real servers beside Prometheus: found on this machine, or fetched or built once, and started as children."""
