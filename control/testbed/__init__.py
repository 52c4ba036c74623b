"""The test bed: a real Kubernetes control plane on this machine, without containers."""
