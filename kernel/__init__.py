"""The few words every room shares. It imports nothing of ours and touches nothing outside the process."""
