"""Workloads on a Kubernetes cluster: the port `Workloads` over the official client."""
