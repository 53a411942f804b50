"""What enforcement costs on this host: the same traffic through routers that differ in their rules only.

```
 sender ---- eth0 router (no rule)      eth1 ---- receiver
        ---- eth0 router (labelgate)    eth1 ----
        ---- eth0 router (iptables ...) eth1 ----
```

All routers stand side by side, so that a round asks each for a moment, one after the other, and what else the
machine does meanwhile falls on all alike. Nothing leaves these network namespaces.
"""
