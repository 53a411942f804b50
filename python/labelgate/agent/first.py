"""What a daemon begins with: the files, or what was in force before them."""

from __future__ import annotations

from collections.abc import Callable

from labelgate.agent.generation import AgentError, Generation, Loader, Options
from labelgate.agent.process import start_mode
from labelgate.agent.state import Record
from labelgate.agent.status import Refusal
from labelgate.config import Config
from labelgate.links import Links
from labelgate.resources import LoadError


def first_generation(
    loader: Loader,
    options: Options,
    config: Config,
    links: Links,
    record: Record | None,
    say: Callable[[str], None],
) -> tuple[Generation, Refusal | None]:
    """Of the files; where they are not valid, a service takes what was in force before, with why."""
    try:
        first = loader.first(links, record)
        _refuse_again(first, record, options)
        if first.source.is_applied:
            paths = ", ".join(first.source.paths)
            say(f"what was applied from {paths} stays in force: the files are as they were then")
        return first, None
    except (LoadError, AgentError, ValueError) as error:
        if record is None or start_mode(config) != "last-good":
            raise
        last = record.confirmed
        paths = "" if last.is_applied or last.paths == options.paths else ", ".join(last.paths)
        if paths and not last.is_lasting:
            say(f"the policy that was in force last is not taken: {paths} may have been given by hand")
            raise
        generation = loader.last_good(record, links)
        where = f", of {paths}," if paths else ""
        say(f"{error}\nthe policy that was in force last{where} is put in force again")
        return generation, Refusal.of(error)


def _refuse_again(first: Generation, record: Record | None, options: Options) -> None:
    """AgentError for a service whose files are still those that the lock-out check refused."""
    if record is None or first.source.is_applied or first.source.files != record.refused:
        return
    last = record.confirmed
    is_known = last.is_applied or last.is_lasting or last.paths == options.paths
    if is_known and start_mode(first.config) == "last-good" and first.config.lockout == "refuse":
        raise AgentError(
            "the files are those that the lock-out check refused; `labelgate check --live` says why, "
            "`labelgate reload --force` puts them in force all the same"
        )


def refuse_what_is_outdated(first: Generation, record: Record | None) -> None:
    """AgentError where the daemon that is replaced has had another policy applied meanwhile."""
    applied = record.confirmed if record and record.confirmed.is_applied else None
    if applied and applied != first.source and applied.files == first.source.files:
        raise AgentError("another policy was applied while this one was compiled: try again")
