"""The channels: each turns the samples of a series into one number that grows with one kind of strangeness."""
