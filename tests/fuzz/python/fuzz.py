"""A Python target under atheris: `fuzz.py TARGET SEEDS [libFuzzer options and corpus folders]`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import atheris

# What tells the target's inputs apart; counters elsewhere would only cost speed.
PARSERS = {
    "documents": ["labelgate.resources", "labelgate.conversion", "labelgate.model", "labelgate.snapshot"],
    "selector-reference": ["labelgate.reference.selectors"],
}


def main() -> None:
    program, target, seeds, *options = sys.argv
    with atheris.instrument_imports(include=PARSERS[target]):
        import document_target
        import selector_target
    from labelgate.resources import documents
    from mutation import Mutator

    documents.MAX_ALIASED = 1000  # more aliases show nothing else, slowly
    mutation = {}
    if target == "documents":
        contents = [path.read_bytes() for path in sorted(Path(seeds).iterdir())]
        # `atheris.Mutate` is another function once fuzzing has begun.
        mutation["custom_mutator"] = Mutator(contents, lambda content, most: atheris.Mutate(content, most))
    check = {"documents": document_target.check, "selector-reference": selector_target.check}[target]
    # libFuzzer starts itself again to merge corpora, by the first word.
    again = shlex.join([sys.executable, program, target, seeds])
    atheris.Setup([again, *options], check, **mutation)
    atheris.Fuzz()


main()
