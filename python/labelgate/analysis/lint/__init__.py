"""What in valid policy is hardly what was meant: `lint`, its rules (docs/lint.md), and its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike, fspath

from labelgate.analysis.lint import (
    chains,
    discovery,
    dnat,
    errors,
    hosts,
    policies,
    replies,
    selectors,
    service_addresses,
    within,
)
from labelgate.analysis.lint.catalogue import (
    RULES,
    SEVERITIES,
    LintRule,
    Severity,
    UnknownRules,
    at_least,
    chosen,
)
from labelgate.analysis.lint.finding import Finding, Remark, finding
from labelgate.analysis.lint.selection import Selection
from labelgate.analysis.lint.suppression import without_suppressed
from labelgate.arguments import several, shown
from labelgate.conversion import is_workload
from labelgate.resources import Loading
from labelgate.settings import Settings
from labelgate.snapshot import Snapshot
from labelgate.sources.files import (
    STDIN,
    Progress,
    all_files,
    file_name,
    in_turn,
    read_file,
    without_collection,
)
from labelgate.sources.places import Places

__all__ = ["RULES", "Finding", "LintRule", "Severity", "UnknownRules", "has_endpoints", "lint", "read"]


_WORDS = "ids or names of rules, or `ALL`"


def lint(
    what: Snapshot | str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    settings_of: Callable[[str | None], Settings] | None = None,
    select: str | Sequence[str] = "ALL",
    ignore: str | Sequence[str] = (),
    severity: Severity = "info",
    places: Places | None = None,
) -> list[Finding]:
    """The findings in a snapshot, or in files and folders; sorted by file and line.

    `select` and `ignore` are one or more ids (`LG101`), beginnings of ids (`LG1`), names (`shadowed-rule`) or
    `ALL`; what is ignored is not selected. Findings below `severity` (error, warning, info) are left out.
    `settings_of` a node say which failsafe ports its host endpoints have; of None what does not differ by
    node.

    Raises:
        LoadError: a document is refused; nothing is judged.
        TypeError: an argument is not what it is to be.
        UnknownRules: a word means no rule.
        ValueError: there is no such severity.

    >>> import labelgate
    >>> from importlib.resources import files
    >>> policy = str(files("labelgate") / "examples" / "01-workload.yaml")
    >>> [(finding.rule, finding.resource, finding.line) for finding in labelgate.lint(policy)]
    [('LG105', 'NetworkPolicy/shop/web-front', 71)]
    >>> labelgate.lint(policy, ignore="family-excluded")
    []
    """
    if not isinstance(what, Snapshot):
        listed = several("what", what, str | PathLike, "a Snapshot, or paths")
        what, places = read([fspath(path) for path in listed])
    if severity not in SEVERITIES:
        raise ValueError(f"severity: found {shown(severity)}, expected one of {', '.join(SEVERITIES)}")
    wanted = chosen(several("select", select, str, _WORDS)) - chosen(several("ignore", ignore, str, _WORDS))
    places = places or Places()
    found = []
    with without_collection():
        for remark in without_suppressed(
            _remarks(what, settings_of or what.settings), what.resources(), wanted
        ):
            if remark.rule in wanted and at_least(RULES[remark.rule].severity, severity):
                place = places.place(remark.resource.location, remark.path)
                found.append(finding(remark, remark.resource.location.file, *place))
        return sorted(found, key=lambda one: one.order)


def has_endpoints(snapshot: Snapshot) -> bool:
    """Whether anything is there that policy can select."""
    endpoints = snapshot.host_endpoints or snapshot.workload_endpoints
    return bool(endpoints) or any(map(is_workload, snapshot.pods))


def read(paths: Iterable[str], progress: Progress = lambda done, whole: None) -> tuple[Snapshot, Places]:
    """The resources of files, folders and `-`, and where their fields stand.

    Raises:
        LoadError: a document is refused.
    """
    loading, texts = Loading(), dict[str, bytes]()
    for file, done in in_turn(all_files(paths), progress):
        content = read_file(file)
        if not isinstance(content, bytes):
            loading.add_unreadable(content, file_name(file))
            continue
        if file == STDIN:
            texts[file_name(file)] = content
        loading.add(content, file_name(file), done)
    return Snapshot.of(loading.result()), Places(texts)


def _remarks(snapshot: Snapshot, settings_of: Callable[[str | None], Settings]) -> Iterable[Remark]:
    selection = Selection(snapshot, settings_of)
    for part in (
        policies,
        hosts,
        dnat,
        service_addresses,
        selectors,
        chains,
        within,
        discovery,
        replies,
        errors,
    ):
        yield from part.remarks(selection)
