"""Detectors over samples in time: streaming, calibrated by a budget of false alarms, explained in words."""
