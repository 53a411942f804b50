"""Every message with which a document is refused, whole: `tests/golden/errors/NAME.yaml` and `NAME.txt`.

After a wanted change run this file with `UPDATE_GOLDEN=1`, then read the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from labelgate import regular
from labelgate.resources import kinds
from labelgate.resources.errors import LoadError, sort_problems
from labelgate.resources.loading import Loading
from labelgate.resources.messages import MESSAGES
from labelgate.sources import files, folders
from labelgate.sources.cache import FileCache
from labelgate.sources.files import read_documents

FOLDER = Path(__file__).parents[1] / "golden" / "errors"
CASES = sorted({path.stem for path in FOLDER.iterdir()})
VARIANT_OF = {
    name: max((code for code in MESSAGES if name.startswith(code)), key=len, default="") for name in CASES
}

LIMITS: dict[str, tuple[object, str]] = {
    "files-large": (files, "MOST_BYTES_IN_ALL"),
    "folder-deep": (folders, "MOST_DEPTH"),
    "folder-full": (folders, "MOST_NAMES"),
}
"""Of all that is read: LoadError comes of the walk itself."""


def read(name: str, monkeypatch: pytest.MonkeyPatch) -> Loading:
    monkeypatch.chdir(FOLDER)
    if name == "file-unreadable":
        # Tests run as root, whom no permission stops.
        def refuse(*_: object) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(files, "read_bounded", refuse)
        return read_documents(["tag.yaml"])
    if name == "file-open":
        with (FOLDER / "tag.yaml").open("a"), pytest.raises(LoadError) as refusal:
            FileCache().read(["tag.yaml"])
        return Loading(problems=list(refusal.value.problems))
    if name == "file-large":
        for module in (regular, files):
            monkeypatch.setattr(module, "MOST_BYTES", 3)
        return read_documents(["tag.yaml"])
    if name in LIMITS:
        monkeypatch.setattr(*LIMITS[name], 0)
        with pytest.raises(LoadError) as refusal:
            read_documents(["."])
        return Loading(problems=list(refusal.value.problems))
    if name == "fault":

        def fail(_data: object, _location: object) -> None:
            raise KeyError("a fault of ours")

        monkeypatch.setattr(kinds, "read", fail)
        loading = read_documents(["tag.yaml"])
        for problem in loading.problems:  # Where the fault is moves with the code.
            object.__setattr__(problem, "found", re.sub(r"\.py:[0-9]+", ".py:1", problem.found))
        return loading
    inputs = [path.name for path in FOLDER.glob(f"{name}.*") if path.suffix != ".txt"]
    return read_documents(inputs or [f"{name}.yaml"])


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = read(name, monkeypatch)
    text = "".join(f"{problem}\n" for problem in sort_problems(loading.problems))
    expected = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(text)
    assert text == expected.read_text()
    codes = {problem.code for problem in loading.problems}
    assert VARIANT_OF[name] in codes or name == "all-at-once"


def test_every_message_has_a_golden_text() -> None:
    assert set(MESSAGES) - set(VARIANT_OF.values()) == set()


def test_every_refusing_rule_has_a_message() -> None:
    """V-16 and V-45 say what is accepted; V-31..V-34 come with M-40."""
    rules = {message.rule for message in MESSAGES.values()}
    wanted = {
        f"V-{number}"
        for number in [
            *range(1, 10),
            *range(10, 37),
            *range(40, 47),
            48,
            *range(50, 55),
            *range(60, 72),
            73,
            74,
        ]
    }
    assert wanted - rules == {"V-16", "V-45"}


@pytest.mark.parametrize("name", [name for name in CASES if name != "fault"])
def test_texts_speak_the_words_of_policy(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text()
    assert not re.search(
        r"::[a-z]|pydantic|\bNone\b|\bstr\b|\bint\b|\bdict\b|\bbool\b|Error\b|\{[a-z]+\}", text
    )


@pytest.mark.parametrize("code", MESSAGES)
def test_texts_have_one_style(code: str) -> None:
    message = MESSAGES[code]
    for text in (message.text, message.expected, message.hint):
        assert text
        assert not text.endswith(".")
        assert (
            text[0].islower()
            or text[0] in "`{0123456789"
            or text.split()[0] in ("IPv4", "UTF-8", "ICMP", "Calico,")
        )
