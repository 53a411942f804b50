"""What the package says of itself to tools: names that are imported when first asked for, and type hints."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import labelgate
import pytest
from labelgate import resources

TYPED = [name for name in labelgate.__all__ if not isinstance(getattr(labelgate, name), str)]


@pytest.mark.parametrize("name", TYPED)
def test_type_hints_can_be_read(name: str) -> None:
    value = getattr(labelgate, name)
    assert get_type_hints(value) or inspect.isclass(value)
    if inspect.isclass(value):
        get_type_hints(value.__init__)


def test_everything_of_the_resources_can_be_imported() -> None:
    found: dict[str, object] = {}
    exec("from labelgate.resources import *", found)
    assert found.keys() - {"__builtins__"} == set(resources.__all__) <= set(dir(resources))
