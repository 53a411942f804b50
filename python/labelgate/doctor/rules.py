"""iptables, the rules of others, and who else uses our queue numbers and mark bits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from labelgate.config import Config
from labelgate.doctor.diagnosis import Diagnosis, some
from labelgate.doctor.kernel import workers_of
from labelgate.netfilter import nfacct
from labelgate.netfilter.apply import VARIANTS, ApplyError, Tables, Tools, families, legacy_tables
from labelgate.netfilter.facts import Family, Marks
from labelgate.netfilter.readback import hazards, mark_writers
from labelgate.netfilter.routing import RoutingRule, mark_readers
from labelgate.netfilter.rules import PREFIX
from labelgate.processors import QUEUES_EACH

_NEEDED = {
    "raw": "-A PREROUTING -m mark --mark 0x400/0x400 -j CT --notrack",
    "mangle": "-A PREROUTING -j MARK --set-xmark 0x0/0x400",
    "filter": "-A INPUT -p tcp -m conntrack --ctstate INVALID -j REJECT --reject-with tcp-reset\n"
    "-A INPUT -m conntrack --ctstate NEW -j NFQUEUE --queue-num 4200 --queue-bypass",
}
"""By table, a rule of each kind that ours are made of; only tried, never applied."""
_COUNTING = f"-A PREROUTING -m nfacct --nfacct-name {PREFIX}doctor"
"""One that counts; the counter need not be there for that."""


def read_variants() -> dict[str, Tables]:
    """The rules of each variant of iptables that is installed; those that cannot be read are left out."""
    found: dict[str, Tables] = {}
    for variant in VARIANTS:
        tools = Tools(variant)
        if tools.installed:
            try:
                found[variant] = {family: tools.read(family) for family in families()}
            except ApplyError:
                found[variant] = {}
    return found


def variants(found: Mapping[str, Tables]) -> Iterator[Diagnosis]:
    """Which iptables are there, and whether both have rules."""
    if not found:
        yield Diagnosis(
            "iptables", "failure", "not installed", "rules are written by iptables-restore",
            "install iptables 1.8 or newer",
        )  # fmt: skip
        return
    used = [variant for variant, tables in found.items() if _rules(tables)]
    names = ", ".join(f"iptables-{variant}" for variant in found)
    if len(used) < 2:
        yield Diagnosis("iptables", "ok", names + (f"; {used[0]} has rules" if used else "; no rules"))
    else:
        yield Diagnosis(
            "iptables", "warning", f"{' and '.join(used)} both have rules",
            "packets pass the rules of both, in an order that is not ours to choose",
            "let all programs use one variant (update-alternatives --config iptables), or set `backend`",
        )  # fmt: skip


def _rules(tables: Tables) -> int:
    return sum(
        len(rules)
        for family in tables.values()
        for table in family.values()
        for chain, rules in table.chains.items()
        if chain not in table.ours
    )


def rules_can_be_written(found: Mapping[str, Tables]) -> Iterator[Diagnosis]:
    """Tries each kind of rule, without applying any."""
    for variant in found:
        for family in families():
            name = f"iptables-{variant}, IPv{family[1]}"
            errors = [
                error for table, text in _NEEDED.items() if (error := _tried(variant, family, table, text))
            ]
            if not errors:
                yield Diagnosis(name, "ok", "knows all matches and targets that we need")
                continue
            yield Diagnosis(
                name, "failure", "; ".join(errors), "our rules cannot be written with it",
                "load the modules xt_NFQUEUE, xt_CT, xt_mark, xt_conntrack, ipt_REJECT; or use the other",
            )  # fmt: skip


def _apart() -> list[str]:
    """Before a program: in a network namespace that goes with it. Nothing without CAP_SYS_ADMIN."""
    command = ["unshare", "--net"]
    try:
        subprocess.run([*command, "true"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return command


def _tried(variant: str, family: Family, table: str, rules: str) -> str | None:
    """Why these rules cannot be written; None: they can."""
    program = Tools("nft" if variant == "nft" else "legacy").program(family, "restore")
    if program is None:
        return f"ip6tables-{variant}-restore is not installed"
    text = f"*{table}\n{rules}\nCOMMIT\n"
    makes_table = variant == "legacy" and table not in legacy_tables(family)
    apart = _apart() if makes_table else []
    try:
        done = subprocess.run(
            [*apart, program, "--test", "--noflush"],
            input=text, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return f"{table}: {program} cannot be run: {error}"
    said = done.stderr.strip().splitlines() or [f"{program} ended with {done.returncode}"]
    return None if done.returncode == 0 else f"{table}: {said[0]}"


def our_rules(found: Mapping[str, Tables], *, is_running: bool) -> Diagnosis:
    """Rules of ours without a daemon: it was killed, or stopped so that they stay."""
    ours = {
        f"iptables-{variant}, IPv{family[1]}": [rule for table in tables.values() for rule in table.queueing]
        for variant, of_family in found.items()
        for family, tables in of_family.items()
        if any(table.is_ours for table in tables.values())
    }
    if is_running or not ours:
        return Diagnosis("our rules", "ok", "of the running daemon" if ours else "none")
    queueing = [rule for rules in ours.values() for rule in rules]
    passing = [rule for rule in queueing if "--queue-bypass" in rule]
    if not queueing:
        meaning = "they answer as they did when it ended, whatever the policy says now"
    elif len(passing) == len(queueing):
        meaning = "what they would queue, mostly new connections, passes unjudged"
    else:
        meaning = "what they queue, mostly new connections, is dropped" + (
            "; where `fail` is open it passes unjudged" if passing else ""
        )
    return Diagnosis(
        "our rules", "failure", f"in {some(list(ours))}, but no daemon answers what they queue", meaning,
        "`labelgate run` (systemctl start labelgate) enforces policy again; `labelgate clean` removes them",
    )  # fmt: skip


def kernel_counters(found: Mapping[str, Tables], config: Config) -> Iterator[Diagnosis]:
    """Whether rules can count what they answer; what they answer does not hang on it."""
    if not config.kernel_counters:
        yield Diagnosis("kernel counters", "ok", "not wanted (`kernelCounters: false`)")
        return
    ours = _ours(found, config)
    places = [(variant, family) for variant in found if ours in (variant, None) for family in families()]
    missing = [
        f"iptables-{variant}, IPv{family[1]}: {error}"
        for variant, family in places
        if (error := _tried(variant, family, "raw", _COUNTING))
    ]
    try:
        nfacct.counters(PREFIX)
    except OSError as error:
        missing.insert(0, f"kernel: {error.strerror}")
    if not missing:
        yield Diagnosis("kernel counters", "ok", "rules can count what they answer")
        return
    yield Diagnosis(
        "kernel counters", "note", "no nfacct: " + "; ".join(missing),
        "packets that rules of the kernel answer are not counted (`labelgate rules`); policy is enforced",
        "load the modules (`modprobe -a xt_nfacct nfnetlink_acct`), or set `kernelCounters: false`",
    )  # fmt: skip


_WITHOUT_REPEAT = "is answered without repeating packets: the rest of the table is skipped for them"


def foreign_rules(found: Mapping[str, Tables], config: Config) -> Iterator[Diagnosis]:
    """Rules of others that our marks do not survive: ahead of ours, or wherever ours read them later."""
    marks = Marks.from_mask(config.mark_mask)
    mode = config.settings.chain_insert_mode
    ours = _ours(found, config)
    saved = [
        (f"{variant} {family}", saved, variant)
        for variant in found
        for family, saved in found[variant].items()
    ]
    hazardous = {
        f"{place}: {hazard}": (f"{place} {hazard.as_writer}", hazard)
        for place, tables, variant in saved
        if ours in (variant, None)
        for hazard in hazards(tables, marks, mode)
    }
    written = [
        f"{place} {writer}"
        for place, tables, variant in saved
        for writer in mark_writers(tables, marks, mode if ours in (variant, None) else None)
    ]
    for writer in written:
        hooks = sorted({hazard.hook for text, hazard in hazardous.values() if text == writer})
        also = f"; {', '.join(hooks)} {_WITHOUT_REPEAT}" if hooks else ""
        yield Diagnosis(
            "rules of others", "warning", writer,
            f"packets may be judged twice, or pass as judged, where it writes bits that are ours{also}",
            "let that rule spare our bits (a mask), or set `marks.mask` to other bits",
        )  # fmt: skip
    for told, (writer, hazard) in hazardous.items():
        if writer in written:
            continue
        behind = " come behind ours," if hazard.is_mended_behind_ours else ""
        yield Diagnosis(
            "rules of others", "warning", told, f"that hook {_WITHOUT_REPEAT}",
            f"let that rule spare our bits (a mask),{behind} or set `marks.mask` to other bits",
        )  # fmt: skip
    if not hazardous and not written:
        yield Diagnosis("rules of others", "ok", "none can write our mark bits before ours read them")


def _ours(found: Mapping[str, Tables], config: Config) -> str | None:
    """The variant that our rules are in, or will be in; None: it is not known yet."""
    installed = [
        variant
        for variant, tables in found.items()
        if any(table.is_ours for of_family in tables.values() for table in of_family.values())
    ]
    if len(installed) == 1:
        return installed[0]
    if config.backend != "auto":
        return config.backend
    used = [variant for variant, tables in found.items() if _rules(tables)]
    return used[0] if len(used) == 1 else None


SAVED = tuple(
    map(
        Path,
        (
            "/etc/iptables/rules.v4",
            "/etc/iptables/rules.v6",
            "/etc/sysconfig/iptables",
            "/etc/sysconfig/ip6tables",
        ),
    )
)
"""What Debian's and Red Hat's services load at the boot."""


def saved_rules(paths: Sequence[Path] = SAVED) -> Iterator[Diagnosis]:
    """Rules of ours among those that somebody has saved for the next boot."""
    found = [path for path in paths if path.is_file()]
    ours = [path for path in found if _SAVED_RULE.search(path.read_text(errors="replace"))]
    for path in ours:
        yield Diagnosis(
            "saved rules", "warning", f"{path} has rules of ours",
            "they are there before the daemon; one that counts has its whole table refused at the boot",
            "save without them (docs/operations.md), or set `kernelCounters: false`",
        )  # fmt: skip
    if not ours:
        yield Diagnosis("saved rules", "ok", "none of ours" if found else "none")


_SAVED_RULE = re.compile(rf"^-A {PREFIX}", re.MULTILINE)


def routing(rules: Sequence[RoutingRule], config: Config) -> Iterator[Diagnosis]:
    """`ip rule`s that read our mark bits."""
    readers = mark_readers(rules, Marks.from_mask(config.mark_mask))
    for reader in readers:
        yield Diagnosis(
            "ip rule", "warning", str(reader),
            "it reads our mark bits: what untracked policy was asked about may be routed by it",
            "give that rule a mask without our bits, or set `marks.mask` to other bits",
        )  # fmt: skip
    if not readers:
        yield Diagnosis("ip rule", "ok", "none reads our marks")


def queue_numbers(text: str, config: Config, daemon: int | None) -> Diagnosis:
    """From /proc/net/netfilter/nfnetlink_queue: who has our numbers; `daemon` is the running one."""
    ours = range(config.queue_base, config.queue_base + QUEUES_EACH * workers_of(config))
    rows = [line.split() for line in text.splitlines()]
    taken = {int(row[0]): int(row[1]) for row in rows if int(row[0]) in ours}
    name = f"queues {ours.start}..{ours.stop - 1}"
    if not taken or daemon is not None:
        return Diagnosis(name, "ok", "of the running daemon" if taken else "free")
    numbers = ", ".join(map(str, sorted(taken)))
    return Diagnosis(
        name, "failure", f"{numbers} taken (netlink port {min(taken.values())}, mostly a process id)",
        "the daemon cannot start: each number has one owner", "end that program, or set `queues.base`",
    )  # fmt: skip


def native_tables() -> Iterator[Diagnosis]:
    """Tables of nftables that no iptables shows."""
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        return
    try:
        done = subprocess.run(
            [program, "-j", "list", "tables"], capture_output=True, text=True, timeout=30, check=True
        )
        names = foreign_tables(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        yield Diagnosis(
            "nftables", "note", f"cannot be read: {error}", "whether other programs have tables is not known",
            "run `nft list tables` to see why",
        )  # fmt: skip
        return
    if names:
        yield Diagnosis(
            "nftables", "note", f"tables of other programs: {', '.join(names)}",
            "they may deny packets first; whether they write our mark bits is not looked at",
            "see `nft list ruleset`; packets that they deny never reach our queues",
        )  # fmt: skip
    else:
        yield Diagnosis("nftables", "ok", "no tables but those of iptables")


_OF_IPTABLES = {(family, name) for family in ("ip", "ip6") for name in
                ("filter", "nat", "mangle", "raw", "security")}  # fmt: skip


def foreign_tables(text: str) -> list[str]:
    """Family and name of each table in the JSON of `nft list tables` that is not one of iptables."""
    tables = [item["table"] for item in json.loads(text)["nftables"] if "table" in item]
    return sorted(
        f"{table['family']} {table['name']}"
        for table in tables
        if (table["family"], table["name"]) not in _OF_IPTABLES
    )


def read_queues(path: Path = Path("/proc/net/netfilter/nfnetlink_queue")) -> str:
    """Empty where no queue was ever made, or where one may not look."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
