"""Two states read together are what each of them is by itself, places and errors too."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from labelgate.resources import LoadError, Resource
from labelgate.sources import states
from labelgate.sources.files import load_documents
from labelgate.sources.states import load_states

CALICO = "projectcalico.org/v3"


def a_set(name: str, net: str = "10.0.0.0/8") -> dict[str, object]:
    return {
        "apiVersion": CALICO, "kind": "GlobalNetworkSet", "metadata": {"name": name},
        "spec": {"nets": [net]},
    }  # fmt: skip


def said(resources: Sequence[Resource]) -> list[tuple[object, ...]]:
    return [(one.key, one.model_dump(), one.location) for one in resources]


def alone(path: Path) -> object:
    try:
        return said(load_documents([path]))
    except LoadError as error:
        return str(error)


def together(old: Path, new: Path) -> object:
    try:
        return tuple(map(said, load_states(str(old), str(new))))
    except LoadError as error:
        return str(error)


def check(folder: Path, old: dict[str, str], new: dict[str, str]) -> None:
    """What is read together is what is read apart; of two refusals the first counts."""
    for name, files in (("old", old), ("new", new)):
        for file, text in files.items():
            (folder / name).mkdir(exist_ok=True)
            (folder / name / file).write_bytes(text.encode())
    first, second = alone(folder / "old"), alone(folder / "new")
    wanted = first if isinstance(first, str) else second if isinstance(second, str) else (first, second)
    assert together(folder / "old", folder / "new") == wanted


PLAIN = [yaml.safe_dump(a_set(f"set-{n}", f"10.{n}.0.0/16")) for n in range(6)]
ODD = [
    json.dumps(a_set("json")),
    json.dumps(a_set("json-numbers") | {"spec": {"nets": [], "x": 1.0}}),
    yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [a_set("item-1"), a_set("item-2")]}),
    "# only a comment\n",
    "",
    "null\n",
    'a: "not a resource',
    "text: |\n  ---\n  not a mark\n",
    yaml.safe_dump(a_set("set-0")),  # one that is there already
    yaml.safe_dump(a_set("UPPER")),
    yaml.safe_dump(a_set("unicode")) + "# \u2028 a break\n",
    yaml.safe_dump(a_set("returns")).replace("\n", "\r\n"),
    yaml.safe_dump(a_set("old-returns")).replace("\n", "\r"),
    "%TAG !e! tag:example.com,2000:\n--- \n" + yaml.safe_dump(a_set("tagged")),
    yaml.safe_dump(a_set("ended")) + "...\n" + yaml.safe_dump(a_set("follows")),
    "&name " + json.dumps(a_set("anchored")),
    f"{{apiVersion: {CALICO}, kind: GlobalNetworkSet, metadata: {{name: flow}}, spec: {{nets: []}}}}",
    yaml.safe_dump({
        "apiVersion": "labelgate.io/v1", "kind": "PolicyTest", "metadata": {"name": "asked"},
        "spec": {"expectations": [{"from": "10.0.0.1", "to": "10.0.0.2", "port": 80, "expect": "deny"}]},
    }),
]  # fmt: skip
MARKS = ["---\n", "--- \n", "--- # a mark\n", "\n---\n"]


@pytest.mark.parametrize("seed", range(6))
def test_read_together_as_apart(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    def text(parts: list[str]) -> str:
        begun = chance.choice(["", chance.choice(MARKS)])
        return begun + "".join(
            part if not at else chance.choice(MARKS) + part for at, part in enumerate(parts)
        )

    for number in range(25):
        parts = chance.sample(PLAIN, chance.randint(1, 5))
        if chance.random() < 0.6:
            parts.insert(chance.randint(0, len(parts)), chance.choice(ODD))
        after = list(parts)
        for _ in range(chance.randint(0, 3)):
            at = chance.randrange(len(after)) if after else 0
            edit = chance.choice([*PLAIN, *ODD])
            after[at : at + chance.randint(0, 1)] = chance.choice([[], [edit]])
        state = chance.getstate()
        old = text(parts)
        chance.setstate(state)  # so that marks are the same, as far as documents are
        folder = tmp_path / str(number)
        folder.mkdir()
        suffix = chance.choice(["yaml", "yaml", "json"])
        check(
            folder, {f"a.{suffix}": old, "b.yaml": PLAIN[5]}, {f"a.{suffix}": text(after), "b.yaml": PLAIN[5]}
        )


def test_a_directive_reaches_behind_the_mark(tmp_path: Path) -> None:
    tagged = yaml.safe_dump(a_set("text")).replace("name: ", "name: !y!str ")
    with_directive = PLAIN[0] + "...\n%TAG !y! tag:yaml.org,2002:\n---\n" + tagged
    check(tmp_path, {"a.yaml": with_directive}, {"a.yaml": PLAIN[0] + "---\n" + tagged})
    assert isinstance(alone(tmp_path / "old"), list)
    assert "undefined tag handle" in str(alone(tmp_path / "new"))


def test_what_stands_before_the_first_mark_is_yaml(tmp_path: Path) -> None:
    def listed(name: str) -> str:
        items = [a_set("item"), a_set(name)]
        return (
            json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1) + "\n---\n" + PLAIN[0]
        )

    check(tmp_path, {"a.yaml": listed("old")}, {"a.yaml": listed("new")})


def test_an_end_where_nothing_has_begun_is_refused(tmp_path: Path) -> None:
    """As it is by `check`: a mark before it would make it one that is empty."""
    check(tmp_path, {"a.yaml": PLAIN[0]}, {"a.yaml": "# none\n...\n---\n" + PLAIN[1]})


def test_what_both_have_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, parts in (("old", PLAIN), ("new", [*PLAIN[:3], yaml.safe_dump(a_set("other")), *PLAIN[4:]])):
        (tmp_path / name).write_text("---\n".join(parts))
    read: list[int] = []
    parsed = states._parsed

    def counted(run: list[states._Piece], file: str) -> states._Held | None:
        read.append(len(run))
        return parsed(run, file)

    monkeypatch.setattr(states, "_parsed", counted)
    old, new = load_states(str(tmp_path / "old"), str(tmp_path / "new"))
    assert read == [1]
    assert {one.key for one in new} - {one.key for one in old} == {"GlobalNetworkSet/other"}
    assert new[0].metadata is old[0].metadata
    assert new[0].location.file == str(tmp_path / "new")
