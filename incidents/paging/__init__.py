"""Pages to people: what a page says on each channel, how an answer is read, when to try again. No I/O of any kind."""
