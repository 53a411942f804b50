"""The kept corpus of `tests/fuzz` through the targets in Python: what was found once stays mended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import document_target
import pytest
import seeds
import selector_target
from labelgate.resources import Loading
from mutation import Mutator

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
CHECKS: dict[str, Callable[[bytes], None]] = {
    "documents": document_target.check,
    "selector-reference": selector_target.check,
}
INPUTS = [path for target in CHECKS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name[:40]}")
def test_what_must_hold_holds_for_the_kept_corpus(path: Path) -> None:
    CHECKS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", CHECKS)
def test_every_target_has_a_corpus(target: str) -> None:
    assert sum(path.parent.name == target for path in INPUTS) >= 10


@pytest.mark.parametrize("target", seeds.SEEDS)
def test_every_target_has_seeds(target: str) -> None:
    contents = list(seeds.SEEDS[target]())
    assert len(contents) >= 15
    assert len(set(contents)) >= 15


def test_changed_documents_are_worth_reading() -> None:
    """Some load and some are refused; the same seed gives the same bytes."""
    contents = list(seeds.documents())
    mutate = Mutator(contents, lambda content, most: content[: most // 2])
    base = contents[0]
    changed = [mutate(base, 4096, seed) for seed in range(200)]
    assert changed == [mutate(base, 4096, seed) for seed in range(200)]
    assert len(set(changed)) > 100
    loaded = 0
    for content in changed:
        loading = Loading()
        loading.add(content, "changed.yaml")
        loaded += not loading.problems
    assert 40 < loaded < 160
