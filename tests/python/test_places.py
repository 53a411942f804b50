"""Where fields stand in their files: as the load says of resources, and of fields as they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from labelgate.resources import Loading
from labelgate.resources.positions import Place
from labelgate.sources.places import Places

YAML = """
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: a}
---
apiVersion: v1
kind: NamespaceList
items:
- metadata:
    name: b
- metadata: {name: c, labels: {x: y}}
---
- apiVersion: projectcalico.org/v3
  kind: Profile
  metadata: {name: d}
  spec:
    ingress:
    - action: Allow
"""
JSON = """{"kind": "NamespaceList", "apiVersion": "v1",
"items": [{"metadata": {"name": "e"}},
{"metadata":
 {"name": "f"}}]}"""
PATHS = ("metadata", "name"), ("spec", "ingress", 0), ("spec", "egress", 3)


@pytest.mark.parametrize("is_given", [False, True])
def test_fields_have_places(tmp_path: Path, is_given: bool) -> None:
    """Those that are not written have that of what is around them."""
    texts = {"a.yaml": YAML, "b.json": JSON}
    loading, given = Loading(), {}
    for name, text in texts.items():
        file = tmp_path / name
        loading.add(text, str(file))
        if is_given:
            given[str(file)] = text.encode()
        else:
            file.write_text(text)
    places = Places(given)
    found = {
        one.metadata.name: [places.place(one.location, path) for path in ((), *PATHS)]
        for one in loading.result()
    }
    assert found == {
        "a": [(2, 1), (4, 12), (2, 1), (2, 1)],
        "b": [(9, 3), (10, 5), (9, 3), (9, 3)],
        "c": [(11, 3), (11, 14), (11, 3), (11, 3)],
        "d": [(13, 3), (15, 14), (18, 7), (17, 5)],
        "e": [(2, 11), (2, 25), (2, 11), (2, 11)],
        "f": [(3, 1), (4, 3), (3, 1), (3, 1)],
    }


def test_what_has_changed_is_where_the_resource_began(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}))
    loading = Loading()
    loading.add(file.read_bytes(), str(file))
    (namespace,) = loading.result()
    assert Places().place(namespace.location, ("metadata",)) == Place(1, 43)
    for content in ("\n{}", "{", None):
        file.unlink() if content is None else file.write_text(content)
        assert Places().place(namespace.location, ("metadata",)) == Place(1, 1)
