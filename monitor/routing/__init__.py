"""Who hears of which alert, when and by which channel: one model, from which Alertmanager's configurations are made."""
