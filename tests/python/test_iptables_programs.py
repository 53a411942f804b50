"""Programs of iptables that fail, made for the test: what is told, and what is put back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from labelgate.netfilter import apply
from labelgate.netfilter.apply import ApplyError, Netfilter, Tools, clean, detect_variant
from labelgate.netfilter.rules import TABLES, Rule, Ruleset, TableRules

Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a program; there are no others."""
    monkeypatch.setattr(apply, "_SEARCH", str(tmp_path))
    monkeypatch.setattr(apply, "families", lambda: ("v4",))

    def made(name: str, script: str) -> Path:
        program = tmp_path / name
        program.write_text(script, encoding="utf-8")
        program.chmod(0o755)
        return program

    return made


def test_a_program_that_cannot_be_run(install: Install) -> None:
    install("iptables-nft-save", "#!/nowhere/sh\n")
    with pytest.raises(ApplyError, match="cannot be run: No such file or directory"):
        Tools("nft").read("v4")


OURS = "*filter\n:lg-INPUT - [0:0]\n-A lg-INPUT -j DROP\nCOMMIT"
WRITE = '#!/bin/sh\ncat >> "$0.log"\n'
RULES = Ruleset({(table, "v4"): TableRules({"lg-INPUT": (Rule("", "-j DROP"),)}) for table in TABLES})


def prints(text: str) -> str:
    return f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n"


def test_rules_that_cannot_be_read_back_are_put_back(install: Install) -> None:
    """The first look finds nothing, the second one fails, all others find what was written."""
    looks = '#!/bin/sh\necho >> "$0.log"\ncase $(wc -l < "$0.log") in 1) exit 0;; 2) exit 1;; esac\n'
    install("iptables-nft-save", looks + prints(OURS))
    written = install("iptables-nft-restore", WRITE).with_suffix(".log")
    with pytest.raises(ApplyError):
        Netfilter("nft").apply(RULES)
    text = written.read_text(encoding="utf-8")
    assert text.count("-A lg-INPUT -j DROP") == len(TABLES)
    back = "*filter\n:lg-INPUT - [0:0]\n-X lg-INPUT\nCOMMIT\n*mangle\nCOMMIT\n*raw\nCOMMIT\n"
    assert text.endswith(back)


def test_tables_are_removed_from_their_readers_on(install: Install) -> None:
    """Whatever order they are printed in: filter reads the bits that raw and mangle give, raw clears them."""
    install(
        "iptables-nft-save", prints("\n".join(OURS.replace("filter", t) for t in ("mangle", "raw", "filter")))
    )
    written = install("iptables-nft-restore", WRITE).with_suffix(".log")
    assert clean() == ["nft v4 filter", "nft v4 mangle", "nft v4 raw"]
    text = written.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("*")] == ["*filter", "*mangle", "*raw"]


@pytest.mark.parametrize("broken", ["nft", "legacy"])
def test_a_variant_that_cannot_be_read_is_not_in_the_way(install: Install, broken: str) -> None:
    other = {"nft": "legacy", "legacy": "nft"}[broken]
    install(f"iptables-{broken}-save", "#!/bin/sh\necho 'incompatible' >&2\nexit 1\n")
    install(f"iptables-{broken}-restore", WRITE)
    install(f"iptables-{other}-save", prints(OURS))
    written = install(f"iptables-{other}-restore", WRITE).with_suffix(".log")
    assert detect_variant() == other
    warnings: list[str] = []
    assert Netfilter("auto", warnings.append).apply(RULES)
    assert warnings == [
        "warning: rules of the other iptables variant are left as they are: "
        "netfilter table all (v4): incompatible"
    ]
    written.unlink()
    with pytest.raises(ApplyError, match="incompatible"):
        clean()
    assert written.read_text(encoding="utf-8") == "*filter\n:lg-INPUT - [0:0]\n-X lg-INPUT\nCOMMIT\n"


def test_a_second_ctrl_c_is_not_theirs(install: Install) -> None:
    """A terminal signals the whole process group of its foreground."""
    install("iptables-nft-save", '#!/bin/sh\necho "*filter\n:$(cut -d " " -f 5 /proc/$$/stat) -\nCOMMIT"\n')
    (group,) = Tools("nft").read("v4")["filter"].chains
    assert int(group) != os.getpgrp()
