"""Makes docs/pictures/reach.png and reach-namespaces.png: `python docs/pictures/reach.py`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CALICO = "projectcalico.org/v3"
APPS = {"shop": ("web", "cart", "pay", "db"), "search": ("api", "index"), "ops": ("metrics", "logs")}
CALLS = {
    "cart": "app == 'web'",
    "pay": "app == 'cart'",
    "db": "app in {'cart', 'pay'}",
    "index": "app == 'api'",
}


def documents(replicas: int) -> list[dict[str, Any]]:
    """Pods of a shop, a search engine and the operators, and who may call whom on port 8080."""
    found: list[dict[str, Any]] = []
    for space, apps in APPS.items():
        found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
        for app in apps:
            for number in range(replicas):
                address = f"10.65.{len(found) // 200}.{len(found) % 200 + 2}"
                found.append(
                    {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "metadata": {"name": f"{app}-{number}", "namespace": space, "labels": {"app": app}},
                        "spec": {"nodeName": f"node{number % 3}", "containers": []},
                        "status": {"podIPs": [{"ip": address}]},
                    }
                )
    sources = {app: {"selector": who} for app, who in CALLS.items()}
    sources["web"] = {"nets": ["203.0.113.0/24"]}
    sources["api"] = {"selector": "app == 'web'"}
    for app, source in sources.items():
        rules = [
            {"action": "Allow", "protocol": "TCP", "source": source, "destination": {"ports": [8080]}},
            {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'metrics'"}},
        ]
        found.append(
            {
                "apiVersion": CALICO,
                "kind": "GlobalNetworkPolicy",
                "metadata": {"name": app},
                "spec": {"selector": f"app == '{app}'", "types": ["Ingress"], "ingress": rules},
            }
        )
    return found


def main() -> None:
    """Runs `labelgate reach` as people do."""
    for name, replicas, more in (("reach", 5, []), ("reach-namespaces", 40, ["--by", "label:app"])):
        with tempfile.TemporaryDirectory() as folder:
            policy = Path(folder, "policy.yaml")
            policy.write_text("\n---\n".join(map(json.dumps, documents(replicas))))
            command = [sys.executable, "-m", "labelgate", "reach", "-f", str(policy), "--port", "8080"]
            subprocess.run([*command, *more, "--picture", str(HERE / f"{name}.png")], check=True)


if __name__ == "__main__":
    main()
