"""A small world in network namespaces, real traffic in it, and the demonstration of the five options."""
