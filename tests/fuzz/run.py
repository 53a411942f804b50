"""Fuzzes every target for a while and says what came of it; `make fuzz` calls it.

What is found is left in `target/fuzzing/TARGET/findings`, with the log beside it. With `--keep` nothing is
fuzzed: what earlier runs have met is reduced to as few inputs as cover the same, and kept in `corpus/`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "python"))

import seeds  # noqa: E402

WORK = Path("target/fuzzing")
PYTHON_PATH = f"{HERE / 'python'}:{HERE.parent / 'python'}"


@dataclass(frozen=True, slots=True)
class Target:
    """A parser and the size of what it is given."""

    name: str
    longest: int
    """Bytes of an input."""
    in_python: bool = False

    @property
    def folder(self) -> Path:
        """Where its runs leave everything."""
        return WORK / self.name

    @property
    def kept(self) -> Path:
        """Its part of the repository's corpus."""
        return HERE / "corpus" / self.name

    def command(self) -> list[str]:
        """The program, without options of libFuzzer."""
        if self.in_python:
            script = str(HERE / "python" / "fuzz.py")
            return [
                "env",
                f"PYTHONPATH={PYTHON_PATH}",
                sys.executable,
                script,
                self.name,
                str(self.folder / "seeds"),
            ]
        return [str(WORK / "bin" / f"fuzz-{self.name}")]

    def options(self) -> list[str]:
        """Those of libFuzzer that every run has: an input gets 10 s and 2 GiB."""
        dictionary = HERE / "dictionaries" / f"{self.name.removesuffix('-reference')}.dict"
        options = [f"-max_len={self.longest}", "-timeout=10", "-rss_limit_mb=2048"]
        options.append(f"-artifact_prefix={self.folder / 'findings'}/")
        return options + [f"-dict={dictionary}"] * dictionary.exists()


TARGETS = (
    Target("selector", 1024),
    Target("packet", 320),
    Target("message", 512),
    Target("conntrack", 512),
    Target("model", 8192),
    Target("capture", 1024),
    Target("selector-reference", 512, in_python=True),
    Target("documents", 8192, in_python=True),
)


def prepare(target: Target) -> None:
    """Folders, and seeds of today."""
    for name in ("corpus", "findings"):
        (target.folder / name).mkdir(parents=True, exist_ok=True)
    target.kept.mkdir(parents=True, exist_ok=True)
    seeds.write(target.name, target.folder / "seeds")


def run(target: Target, options: Sequence[str], folders: Sequence[Path]) -> tuple[int, str]:
    """Exit code and log of one run."""
    log = target.folder / "log"
    with log.open("w") as file:
        command = [*target.command(), *target.options(), *options, *map(str, folders)]
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    return done.returncode, log.read_text(errors="replace")


def fuzz(target: Target, seconds: int) -> bool:
    """Whether nothing was found; prints one row."""
    folders = [target.folder / name for name in ("corpus", "seeds")]
    options = [f"-max_total_time={seconds}", "-print_final_stats=1"]
    code, log = run(target, options, [folders[0], target.kept, folders[1]])
    executions = re.findall(r"^stat::number_of_executed_units: (\d+)", log, re.MULTILINE)
    corpus = re.findall(r" corp: (\d+)/", log)
    shown = [number[-1] if number else "?" for number in (executions, corpus)]
    print(f"{target.name:<20}{shown[0]:>14}{shown[1]:>10}{'one' if code else 'none':>10}", flush=True)
    if code:
        print("\n".join(log.splitlines()[-40:]))
        print(f"\n{target.name}: see {target.folder / 'findings'}; tests/fuzz/README.md says what to do\n")
    return code == 0


def keep(target: Target) -> None:
    """Reduces what was met and puts it into the repository."""
    before = sum(1 for _ in target.kept.iterdir())
    met = [target.folder / name for name in ("corpus", "seeds")]
    code, log = run(target, ["-set_cover_merge=1", "-use_counters=0"], [target.kept, *met])
    if code:
        sys.exit(f"{target.name}: {log[-2000:]}")
    print(f"{target.name}: {before} inputs were kept, {sum(1 for _ in target.kept.iterdir())} are now")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=", ".join(target.name for target in TARGETS)
    )
    given = parser.parse_args()
    if unknown := set(given.targets) - {target.name for target in TARGETS}:
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}")
    chosen = [target for target in TARGETS if not given.targets or target.name in given.targets]
    for target in chosen:
        prepare(target)
    if given.keep:
        for target in chosen:
            keep(target)
        return
    print(f"{'target':<20}{'executions':>14}{'corpus':>10}{'findings':>10}")
    clean = [fuzz(target, given.seconds) for target in chosen]
    sys.exit(0 if all(clean) else 1)


main()
