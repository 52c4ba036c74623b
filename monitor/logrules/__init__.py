"""Log rules: what a rule is, what a turn of it decides, and what becomes of its alerts. Pure; no store, no clock."""
