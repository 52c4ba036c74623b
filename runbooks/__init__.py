"""What to do, as data; how to carry it out, as a machine without I/O. Knows the kernel only."""
