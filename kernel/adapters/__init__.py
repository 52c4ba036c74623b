"""The real faces of the kernel's ports."""
