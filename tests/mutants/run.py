"""Seeds one fault after another into a copy of the tree, and asks whether a case of `tests/cases` sees it.

A fault is caught where a case is answered wrong. One that does not apply, does not build, or crashes
instead of answering is an error, as is one that no case sees.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import cache_from_source
from pathlib import Path
from xml.etree import ElementTree

from faults import RESULT, ROOT, Fault, load_faults

WORK = ROOT / "target" / "mutants"
TREE = WORK / "tree"
COPIED = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "benches", "src", "python", "tests")
TESTS = (
    "test_cases.py",
    "test_cases_through_rules.py",
    "test_cases_connectivity.py",
)
CORE = TREE / "python" / "labelgate" / "_core.abi3.so"
SOUND_CORE = WORK / "_core.abi3.so"
STATE = WORK / "caught.json"
REPORT = WORK / "report.xml"
BUILD_SECONDS, TEST_SECONDS = 900, 600

Caught = dict[str, str]
"""Ids of faults, and the case that caught each."""


class RunError(Exception):
    """The question whether a fault is caught has no answer."""


def copy_tree() -> None:
    """A copy of what is built and tested, with new times: cargo must see what an earlier run has left."""
    shutil.rmtree(TREE, ignore_errors=True)
    for name in COPIED:
        source, target = ROOT / name, TREE / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so", ".hypothesis")
            shutil.copytree(source, target, copy_function=shutil.copy, symlinks=True, ignore=ignored)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def build() -> None:
    """Builds the core as fast as it goes, for the tests do not wait for it: incrementally, not optimized.

    Its assertions are left out, as users have it: a fault is to be seen in an answer.
    """
    command = ["cargo", "build", "--locked", "--quiet", "--lib", "--features", "python,pyo3/extension-module"]
    profile = {
        "CARGO_PROFILE_DEV_DEBUG": "0",
        "CARGO_PROFILE_DEV_DEBUG_ASSERTIONS": "false",
        "CARGO_PROFILE_DEV_OPT_LEVEL": "0",
        "CARGO_INCREMENTAL": "1",
    }
    built = run(command, profile | {"CARGO_TARGET_DIR": str(WORK / "cargo")}, BUILD_SECONDS)
    if built.returncode:
        raise RunError(f"does not build:\n{built.stderr}")
    shutil.copy(WORK / "cargo" / "debug" / "liblabelgate.so", CORE)


def catching_case() -> str | None:
    """Runs the cases; the one that is answered wrong, if any."""
    REPORT.unlink(missing_ok=True)
    python = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--junitxml={REPORT}"]
    tests = [f"tests/python/{name}" for name in TESTS]
    tested = run([*python, *tests], {"PYTHONPATH": str(TREE / "python")}, TEST_SECONDS)
    if tested.returncode == 0:
        return None
    if not REPORT.exists():
        raise RunError(f"no test ran:\n{tested.stdout}{tested.stderr}")
    for test in ElementTree.parse(REPORT).iter("testcase"):
        failure = test.find("failure")
        message = "" if failure is None else failure.get("message", "")
        name = re.fullmatch(
            r"test_\w+\[(.+?)(-table|-reference|-classes|-tree|-services|-linear)?\]", test.get("name", "")
        )
        if name and re.match(r"(AssertionError|assert)\b", message):
            return name[1]
    raise RunError(f"crashes instead of answering:\n{tested.stdout}{tested.stderr}")


def run(
    command: Sequence[str], environment: dict[str, str], seconds: int
) -> subprocess.CompletedProcess[str]:
    """Runs a command in the copy of the tree."""
    try:
        return subprocess.run(
            command,
            cwd=TREE,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"no end after {seconds} seconds: {command[0]}") from None


@contextmanager
def seeded(fault: Fault) -> Iterator[None]:
    """The copy of the tree with the fault in it, built if need be."""
    file = TREE / fault.file
    sound = file.read_text()
    write(file, fault.in_text(sound))
    try:
        if fault.is_compiled:
            build()
        yield
    finally:
        write(file, sound)
        shutil.copy(SOUND_CORE, CORE)


def write(file: Path, text: str) -> None:
    """Writes a source; Python would take its old bytecode for new within the same second."""
    file.write_text(text)
    Path(cache_from_source(str(file))).unlink(missing_ok=True)


def prepare() -> None:
    """Makes the copy, and sees every case pass in it: without that nothing else would mean anything."""
    copy_tree()
    build()
    shutil.copy(CORE, SOUND_CORE)
    if case := catching_case():
        raise RunError(f"without any fault the case {case} fails")


def judge(faults: Sequence[Fault], caught: Caught) -> list[str]:
    """Adds what is caught, and returns what is not."""
    wrong = []
    for number, fault in enumerate(faults, 1):
        try:
            with seeded(fault):
                case = catching_case()
        except (RunError, ValueError) as error:
            wrong.append(f"{fault.id}: {error}")
            said = "ERROR"
        else:
            said = f"caught by {case}" if case else "SURVIVED"
            if case:
                caught[fault.id] = case
            else:
                caught.pop(fault.id, None)
                wrong.append(f"{fault.id}: survived: {fault.breaks}")
        print(f"{number}/{len(faults)} {fault.id}: {said}", flush=True)
        STATE.write_text(json.dumps(caught))
    return wrong


def write_result(faults: Sequence[Fault], caught: Caught) -> None:
    """The table of all faults, each with the case that caught it."""
    rows = [
        f"| {fault.id} | {', '.join(fault.rules)} | {fault.file} | {fault.breaks} | {caught[fault.id]} |"
        for fault in faults
    ]
    head = [
        "# Seeded faults",
        "",
        f"{len(faults)} faults, and the first case that fails with each. Written by `make mutants`.",
        "",
        "| fault | rules | file | what is wrong then | caught by case |",
        "|---|---|---|---|---|",
    ]
    RESULT.write_text("\n".join([*head, *rows, ""]))


def main() -> int:
    """Runs as the command line says; 1 where a fault is not caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="ID", help="only this fault, and write no table")
    parser.add_argument("--resume", action="store_true", help="trust what an earlier run has seen caught")
    options = parser.parse_args()
    faults = load_faults()
    chosen = [fault for fault in faults if not options.only or fault.id in options.only]
    if unknown := set(options.only or ()) - {fault.id for fault in faults}:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    is_partial = options.resume or options.only
    caught: Caught = json.loads(STATE.read_text()) if is_partial and STATE.exists() else {}
    try:
        prepare()
    except RunError as error:
        print(f"the tree without faults: {error}", file=sys.stderr)
        return 1
    wrong = judge([fault for fault in chosen if options.only or fault.id not in caught], caught)
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong and not options.only:
        write_result(faults, caught)
    print(f"{len(wrong)} of {len(chosen)} not caught")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
