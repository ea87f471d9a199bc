"""Machines in network namespaces, for the cluster demo and the chaos tests: cables that can be pulled for real."""
