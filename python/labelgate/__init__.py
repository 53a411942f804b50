"""Calico and Kubernetes network policy on any Linux host."""
