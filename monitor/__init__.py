"""What is watched: from events and readings to metrics, logs and evidence."""
