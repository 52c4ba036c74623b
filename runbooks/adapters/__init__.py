"""Runbooks from YAML, and the plants they act on."""
