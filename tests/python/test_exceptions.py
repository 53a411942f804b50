"""Every exception of the package goes to other processes and back, whole."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import labelgate
import pytest
from labelgate import LoadError
from labelgate.analysis.lint import UnknownRules
from labelgate.cli import _OutputError
from labelgate.cli.host_facts import _Refused
from labelgate.cli.lines import Disagreement
from labelgate.control.protocol import ControlError
from labelgate.flow import FieldError
from labelgate.lockout.check import Finding, LockOutError
from labelgate.netfilter.apply import ApplyError
from labelgate.resources import load_text
from labelgate.resources.errors import Wrong
from labelgate.resources.positions import Place, SyntaxProblem


def load_error() -> LoadError:
    with pytest.raises(LoadError) as refused:
        load_text("kind: Tier\n---\n{")
    return refused.value


WRONG = Wrong("nesting", "level 33", limit=32)
FINDINGS = [Finding("ssh session", "192.0.2.5", "end of tier (E-21)", True)]
SAMPLES: dict[type[BaseException], Callable[[], BaseException]] = {
    FieldError: lambda: FieldError("src", "found `x`"),
    ApplyError: lambda: ApplyError("raw", "v4", "line 3 failed\n"),
    LockOutError: lambda: LockOutError(FINDINGS),
    ControlError: lambda: ControlError("invalid", "no", {"problems": [1]}),
    LoadError: load_error,
    Wrong: lambda: WRONG,
    SyntaxProblem: lambda: SyntaxProblem(WRONG, Place(1, 2)),
    UnknownRules: lambda: UnknownRules("LG9999"),
    _OutputError: lambda: _OutputError(OSError(28, "No space left on device")),
    Disagreement: lambda: Disagreement({"verdict": "deny"}, {"verdict": "allow"}),
    _Refused: lambda: _Refused(("interfaces", "eth0"), "found 5", key=True),
}
"""Of those whose `__init__` wants something else than a text."""


def exceptions() -> Iterator[type[BaseException]]:
    """Those that any module of the package has, of ours."""
    for name in [module.name for module in walk_packages(labelgate.__path__, "labelgate.")]:
        if name.endswith("__main__"):
            continue
        for value in vars(import_module(name)).values():
            is_ours = getattr(value, "__module__", "").startswith("labelgate.")
            if is_ours and isinstance(value, type) and issubclass(value, BaseException):
                yield value


OURS = sorted(set(exceptions()), key=str)


def parts(value: object) -> Any:
    """What it is made of: exceptions are never equal."""
    if isinstance(value, BaseException):
        return type(value), str(value), parts(value.args), {k: parts(one) for k, one in vars(value).items()}
    return tuple(map(parts, value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize("kind", OURS)
def test_exceptions_are_pickled_and_copied_whole(kind: type[BaseException]) -> None:
    error = SAMPLES.get(kind, lambda: kind("what is wrong"))()
    assert type(error) is kind
    error.add_note("seen at work")
    whole = parts(error)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert parts(pickle.loads(pickle.dumps(error, protocol))) == whole
    assert parts(copy.copy(error)) == parts(copy.deepcopy(error)) == whole


def test_those_that_want_more_than_a_text_are_found() -> None:
    assert SAMPLES.keys() <= set(OURS)


def test_a_pool_of_processes_hands_out_what_is_wrong(tmp_path: Path) -> None:
    with get_context("spawn").Pool(1) as pool, pytest.raises(LoadError) as refused:
        pool.apply_async(labelgate.load, (str(tmp_path / "none.yaml"),)).get(60)
    assert refused.value.problems[0].file.endswith("none.yaml")
