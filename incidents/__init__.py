"""The story: alert -> incident -> run -> post-mortem. An incident is a fold over its timeline."""
