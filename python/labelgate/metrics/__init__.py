"""What the daemon tells over HTTP: `families` (its status as Prometheus metrics), `server` (a few paths)."""
