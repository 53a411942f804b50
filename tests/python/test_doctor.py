"""What the doctor makes of what it sees: each ailment is named, with its meaning and its mend."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_nfacct import FakeNfacct
from labelgate.config import Config, load_config
from labelgate.doctor import Diagnosis, examination, examine, kernel, rules
from labelgate.doctor import files as doctor_files
from labelgate.doctor.files import event_file, files
from labelgate.doctor.policies import policies as doctor_policies
from labelgate.links import Link, Links, Master
from labelgate.netfilter.readback import parse_save
from labelgate.netfilter.routing import RoutingRule

CONFIG = load_config(None, environ={})
MARKING = """*filter
:INPUT ACCEPT [0:0]
-A INPUT -j MARK --set-xmark 0x0/0xffffffff
-A INPUT -j lg-INPUT
COMMIT
"""


def states(*found: Diagnosis) -> list[str]:
    for diagnosis in found:
        assert (diagnosis.meaning != "") == (diagnosis.mend != "") == (diagnosis.state != "ok")
    return [diagnosis.state for diagnosis in found]


@pytest.mark.parametrize(
    ("release", "state"),
    [("6.18.44-fc", "ok"), ("5.7.0", "ok"), ("5.6.19", "failure"), ("4.19.0-27-amd64", "failure")],
)
def test_kernels(release: str, state: str) -> None:
    assert states(kernel.kernel_version(release)) == [state]


def test_capabilities() -> None:
    assert states(*kernel.capabilities("CapEff:\t0000000000003000\n")) == ["ok", "ok"]
    assert states(*kernel.capabilities("CapEff:\t0000000000001000\n")) == ["ok", "failure"]
    assert states(*kernel.capabilities("CapEff:\t0000000000000000\n")) == ["failure", "failure"]


def test_conntrack(tmp_path: Path) -> None:
    assert states(*kernel.conntrack(tmp_path)) == ["note"]
    (tmp_path / "nf_conntrack_max").write_text("1000\n")
    for count, state in ((10, "ok"), (799, "ok"), (801, "warning")):
        (tmp_path / "nf_conntrack_count").write_text(f"{count}\n")
        assert states(*kernel.conntrack(tmp_path)) == [state]


def test_reverse_path() -> None:
    """`all` counts where it is above the interface's own; loose (2) is no trouble."""
    assert states(kernel.reverse_path({"all": 0, "eth0": 0, "eth1": 2})) == ["ok"]
    assert kernel.reverse_path({"all": 1, "eth0": 0, "eth1": 2}).found == "strict on eth0"
    assert kernel.reverse_path({"all": 0, "default": 1, "lo": 1}).state == "ok"


def test_mixed_variants() -> None:
    tables = {"v4": parse_save("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n")}
    assert states(*rules.variants({"nft": tables, "legacy": {}})) == ["ok"]
    assert states(*rules.variants({"nft": tables, "legacy": tables})) == ["warning"]
    assert states(*rules.variants({})) == ["failure"]


def test_rules_of_others_that_write_our_bits() -> None:
    """Ahead of ours also for what the second pass of a packet needs; that is not mended behind ours."""
    tables = {"v4": parse_save(MARKING)}
    (written,) = rules.foreign_rules({"nft": tables}, CONFIG)
    assert written.state == "warning"
    assert written.found.startswith("nft v4 filter: `-A INPUT -j MARK")
    assert "that are ours; filter-input is answered without repeating packets: " in written.meaning
    assert "behind ours" not in written.mend
    spared = {"v4": parse_save(MARKING.replace("0xffffffff", "0xff"))}
    assert states(*rules.foreign_rules({"nft": spared}, CONFIG)) == ["ok"]
    limited = {"v4": parse_save(MARKING.replace("-j MARK --set-xmark 0x0/0xffffffff", LIMITED))}
    (hazard,) = rules.foreign_rules({"nft": limited}, CONFIG)
    assert "behind ours" in hazard.mend


LIMITED = "-m limit --limit 5/sec -j DROP"


@pytest.mark.parametrize("table", ["mangle", "nat"])
def test_rules_of_others_that_write_our_bits_behind_ours(table: str) -> None:
    ours = {"mangle": ":lg-PREROUTING - [0:0]\n-A PREROUTING -j lg-PREROUTING\n", "nat": ""}[table]
    marking = f"*{table}\n{ours}-A PREROUTING -j MARK --set-xmark 0x100/0xffffffff\nCOMMIT\n"
    tables = {"v4": parse_save("*filter\n:lg-INPUT - [0:0]\nCOMMIT\n" + marking)}
    (written,) = rules.foreign_rules({"nft": tables, "legacy": {}}, CONFIG)
    assert (written.state, f"nft v4 {table}: `-A PREROUTING -j MARK" in written.found) == ("warning", True)


def test_rules_of_the_other_variant_that_write_our_bits() -> None:
    """Wherever they stand; those that only end a table are none of ours."""
    marks = "-A OUTPUT -j X\n-A X -j MARK --set-xmark 0x100/0x100"
    text = f"*nat\n:OUTPUT ACCEPT [0:0]\n:X - [0:0]\n{marks}\nCOMMIT\n"
    ends = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m limit --limit 5/sec -j DROP\nCOMMIT\n"
    ours = {"v4": parse_save("*filter\n:lg-INPUT - [0:0]\nCOMMIT\n")}
    (found,) = rules.foreign_rules({"nft": ours, "legacy": {"v4": parse_save(text + ends)}}, CONFIG)
    assert found.state == "warning"
    assert found.found == "legacy v4 nat: `-A X -j MARK --set-xmark 0x100/0x100` can write our mark bits"
    assert states(*rules.foreign_rules({"nft": ours, "legacy": {"v4": parse_save(ends)}}, CONFIG)) == ["ok"]


def test_routing_rules_that_read_our_bit() -> None:
    assert states(*rules.routing([RoutingRule(4, 100, 0xCA6C, 0xFFFFFFFF)], CONFIG)) == ["warning"]
    assert states(*rules.routing([RoutingRule(4, 100, 1, 0xFF)], CONFIG)) == ["ok"]


def test_rules_of_ours_that_are_saved_for_the_boot(tmp_path: Path) -> None:
    paths = [tmp_path / "rules.v4", tmp_path / "rules.v6"]
    assert [found.found for found in rules.saved_rules(paths)] == ["none"]
    paths[0].write_text("*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n")
    assert states(*rules.saved_rules(paths)) == ["ok"]
    paths[1].write_text("*filter\n:lg-INPUT - [0:0]\n-A INPUT -j lg-INPUT\n-A lg-INPUT -j ACCEPT\nCOMMIT\n")
    (told,) = rules.saved_rules(paths)
    assert (told.state, told.found) == ("warning", f"{paths[1]} has rules of ours")


QUEUES = "  100  77     0 2   128     0     0        5  1\n 4200  4711  0 2   128     0     0        0  1\n"


def test_queue_numbers() -> None:
    assert rules.queue_numbers("", CONFIG, None).found == "free"
    taken = rules.queue_numbers(QUEUES, CONFIG, None)
    assert (taken.state, taken.found.startswith("4200 taken (netlink port 4711")) == ("failure", True)
    assert states(rules.queue_numbers(QUEUES, CONFIG, daemon=4711)) == ["ok"]


LEFT = """*filter
:INPUT ACCEPT [0:0]
:lg-INPUT - [0:0]
-A INPUT -j lg-INPUT
-A lg-INPUT -i eth0 -j NFQUEUE --queue-num 4206%s
-A lg-INPUT -i eth1 -j NFQUEUE --queue-num 4207%s
COMMIT
"""


@pytest.mark.parametrize(
    ("first", "last", "meaning"),
    [
        ("", "", "is dropped"),
        (" --queue-bypass", "", "where `fail` is open it passes unjudged"),
        (" --queue-bypass", " --queue-bypass", "would queue, mostly new connections, passes unjudged"),
    ],
)
def test_rules_of_ours_without_a_daemon(first: str, last: str, meaning: str) -> None:
    found: dict[str, Any] = {"nft": {"v4": parse_save(LEFT % (first, last)), "v6": {}}, "legacy": {}}
    told = rules.our_rules(found, is_running=False)
    assert states(told) == ["failure"]
    assert told.found == "in iptables-nft, IPv4, but no daemon answers what they queue"
    assert told.meaning.endswith(meaning)
    assert states(rules.our_rules(found, is_running=True)) == ["ok"]
    assert rules.our_rules({"nft": {}}, is_running=False).found == "none"


def test_rules_of_ours_that_queue_nothing() -> None:
    lines = [line for line in LEFT.splitlines() if "NFQUEUE" not in line]
    told = rules.our_rules({"nft": {"v4": parse_save("\n".join(lines))}}, is_running=False)
    assert (told.state, "whatever the policy says now" in told.meaning) == ("failure", True)


def test_native_tables() -> None:
    text = """{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "ip", "name": "filter"}},
    {"table": {"family": "inet", "name": "firewalld"}}]}"""
    assert rules.foreign_tables(text) == ["inet firewalld"]


def test_buffers() -> None:
    hook = {"receive_buffer_wanted": 100, "receive_buffer_granted": 100, "overruns": 0}
    assert states(kernel.buffers({"filter-input": hook})) == ["ok"]
    assert states(kernel.buffers({"filter-input": hook | {"overruns": 1}})) == ["warning"]
    found = kernel.buffers({"raw-output": hook, "filter-input": hook | {"receive_buffer_granted": 99}})
    assert (found.state, found.found) == ("warning", "199 of 200 bytes granted, 0 overruns")


def config(**keys: str) -> Config:
    return load_config(
        None, environ={f"LABELGATE_QUEUES_{key.upper()}": value for key, value in keys.items()}
    )


def test_workers() -> None:
    two = frozenset({0, 1})
    assert states(kernel.workers(config(workers="2", cpus="0,1"), two, 2)) == ["ok"]
    assert kernel.workers(config(workers="3"), two, 2).state == "warning"
    found = kernel.workers(config(workers="1", cpus="1,2,7"), two, 2)
    assert (found.state, found.found) == ("failure", "no processor 2, 7")


def test_queue_numbers_of_all_workers() -> None:
    later = QUEUES.replace(" 4200", " 4227")
    assert rules.queue_numbers(later, config(workers="1"), None).state == "ok"
    taken = rules.queue_numbers(later, config(workers="2"), None)
    assert (taken.state, taken.subject) == ("failure", "queues 4200..4227")


@pytest.mark.parametrize("error", [OSError(11, "no processes"), subprocess.TimeoutExpired("nft", 30)])
def test_programs_that_cannot_be_run(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(rules.subprocess, "run", fail)
    monkeypatch.setattr(rules.shutil, "which", lambda name, **_: f"/sbin/{name}")
    found = list(rules.rules_can_be_written({"nft": {}}))
    assert {one.state for one in found} == {"failure"}
    assert all("cannot be run" in one.found for one in found)
    assert states(*rules.native_tables()) == ["note"]


@pytest.fixture
def kernel_without_counters(monkeypatch: pytest.MonkeyPatch) -> FakeNfacct:
    nfacct = FakeNfacct()
    nfacct.is_there = False
    monkeypatch.setattr(rules, "nfacct", nfacct)
    return nfacct


def test_a_kernel_that_cannot_count(kernel_without_counters: FakeNfacct) -> None:
    (found,) = rules.kernel_counters({}, CONFIG)
    assert (states(found), found.found) == (["note"], "no nfacct: kernel: Invalid argument")
    assert "modprobe -a xt_nfacct" in found.mend
    assert "kernelCounters: false" in found.mend
    unwanted = load_config(None, environ={"LABELGATE_KERNELCOUNTERS": "false"})
    assert states(*rules.kernel_counters({}, unwanted)) == ["ok"]
    kernel_without_counters.is_there = True
    assert states(*rules.kernel_counters({}, CONFIG)) == ["ok"]


def test_an_iptables_that_cannot_count(
    kernel_without_counters: FakeNfacct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only of the variant that is used: the other one need not."""
    kernel_without_counters.is_there = True
    said = "iptables-restore: Couldn't load match `nfacct':No such file or directory\n\nError occurred"

    def run(command: list[str], input: str = "", **_: object) -> subprocess.CompletedProcess[str]:
        is_refused = any("legacy" in word for word in command) and "-m nfacct --nfacct-name" in input
        return subprocess.CompletedProcess(command, 2 if is_refused else 0, "", said if is_refused else "")

    monkeypatch.setattr(rules.subprocess, "run", run)
    monkeypatch.setattr(rules.Tools, "program", lambda tools, *_: f"/sbin/{tools.variant}")
    monkeypatch.setattr(rules, "families", lambda: ("v4",))
    (found,) = rules.kernel_counters({"nft": {}, "legacy": {}}, CONFIG)
    assert states(found) == ["note"]
    assert found.found.startswith(
        "no nfacct: iptables-legacy, IPv4: raw: iptables-restore: Couldn't load match"
    )
    nft = load_config(None, environ={"LABELGATE_BACKEND": "nft"})
    assert states(*rules.kernel_counters({"nft": {}, "legacy": {}}, nft)) == ["ok"]


def test_a_program_that_fails_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess(["x"], 4, "", "")
    monkeypatch.setattr(rules.subprocess, "run", lambda *_, **__: done)
    assert "ended with 4" in next(rules.rules_can_be_written({"nft": {}})).found


def test_what_cannot_be_looked_at_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def looked() -> dict[str, Diagnosis]:
        return {one.subject: one for one in examine(CONFIG)}

    monkeypatch.setattr(examination, "_status", lambda _: None)
    monkeypatch.setattr(rules, "read_variants", dict)
    whole = looked()
    monkeypatch.setattr(examination, "read_routing_rules", fail)
    found = looked()
    assert (found["ip rule"].state, found.keys()) == ("warning", whole.keys())
    assert "Too many open files" in found["ip rule"].found


def test_without_files_none_is_said_to_be_well() -> None:
    (found,) = files([])
    assert (found.state, found.found.partition(":")[0]) == ("note", "none was looked at")
    assert "--config" in found.mend


@pytest.mark.parametrize(("running", "who"), [(4711, "pid 4711"), (0, "in a container")])
def test_a_daemon_whose_socket_is_not_found_is_no_stranger(
    running: int, who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queues are not somebody else's, to be ended."""
    monkeypatch.setattr(rules, "read_variants", dict)
    monkeypatch.setattr(rules, "read_queues", lambda: QUEUES)
    nowhere = load_config(None, environ={"LABELGATE_SOCKET": str(tmp_path / "none")})
    found = {one.subject: one for one in examine(nowhere, running=running)}
    assert states(found["daemon"]) == ["warning"]
    assert found["daemon"].found == f"labelgate runs ({who}), but nobody answers at {tmp_path / 'none'}"
    (queues,) = (one for subject, one in found.items() if subject.startswith("queues "))
    assert queues.state == "ok"


def test_a_daemon_of_another_network_namespace_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here answers the queues that it has there."""
    monkeypatch.setattr(rules, "read_variants", dict)
    monkeypatch.setattr(rules, "read_queues", lambda: QUEUES)
    status = {"networkNamespace": 1, "pid": 4711}
    monkeypatch.setattr(examination, "_status", lambda _: status)
    found = {one.subject: one for one in examine(CONFIG)}
    assert states(found["daemon"]) == ["warning"]
    assert found["daemon"].found.endswith("(pid 4711) is that of another network namespace")
    (queues,) = (one for subject, one in found.items() if subject.startswith("queues "))
    assert queues.state != "ok"


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of root's, as if it were not in /tmp."""
    monkeypatch.setattr(doctor_files, "TEMPORARY", ())
    monkeypatch.setattr(doctor_files, "HOMES", ())
    folder = tmp_path / "policies"
    folder.mkdir(mode=0o700)
    (folder / "one.yaml").write_text("")
    (folder / "one.yaml").chmod(0o600)
    monkeypatch.setattr(doctor_files, "_may", with_open_parents(tmp_path, doctor_files._may))
    return folder


def with_open_parents(tmp_path: Path, real: Callable[[os.stat_result, int], bool]) -> Any:
    above = {parent.stat().st_ino for parent in (tmp_path, *tmp_path.parents)}
    return lambda found, bits: found.st_ino in above or real(found, bits)


def test_files_that_root_owns(policies: Path) -> None:
    assert states(*files([str(policies)])) == ["ok"]


@pytest.mark.parametrize(
    ("owner", "folder_mode", "mode", "is_read"),
    [
        ((1000, 1000), 0o755, 0o600, False),
        ((1000, 0), 0o755, 0o640, True),
        ((1000, 1000), 0o755, 0o644, True),
        ((0, 0), 0o755, 0o200, False),
        ((1000, 1000), 0o700, 0o644, False),
    ],
)
def test_files_of_others(
    policies: Path, owner: tuple[int, int], folder_mode: int, mode: int, is_read: bool
) -> None:
    """Who is root without CAP_DAC_OVERRIDE is owner, group or everybody, as anybody else."""
    file = policies / "one.yaml"
    file.chmod(mode)
    policies.chmod(folder_mode)
    if folder_mode == 0o700:
        os.chown(policies, *owner)
    os.chown(file, *owner)
    found = list(files([str(policies)]))
    assert states(*found) == ["ok" if is_read else "warning"]
    assert is_read or "mode" in found[0].found


def test_the_file_of_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(event_file(None)) == []
    file = tmp_path / "events"
    assert states(*event_file(str(file))) == ["ok"]
    file.touch()
    assert states(*event_file(str(file))) == ["ok"]
    (tmp_path / "link").symlink_to(file)
    for name, why in (
        ("link", "is a link"),
        (".", "is a folder"),
        ("no/events", f"has no folder {tmp_path}/no"),
    ):
        (found,) = event_file(str(tmp_path / name))
        assert (found.state, found.found.endswith(why)) == ("warning", True)
    room = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*room[:3], 0, *room[4:])))
    (found,) = event_file(str(file))
    assert found.found == f"{file} is on a disk that is full"
    monkeypatch.setattr(os, "access", lambda *_: False)  # Tests run as root, whom no permission stops.
    (found,) = event_file(str(file))
    assert found.found == f"{file} cannot be written"


def test_files_that_the_unit_does_not_see(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_files, "TEMPORARY", (str(policies.parent),))
    link = policies / "link.yaml"
    link.symlink_to("/nowhere/at/all")
    assert "does not see" in next(files([str(policies)])).found
    monkeypatch.setattr(doctor_files, "TEMPORARY", ())
    assert "No such file" in next(files([str(link)])).found


HOST_ENDPOINT = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: %s}
spec: {node: edge1, %s}
"""
HERE = Links((Link(1, "lo", ("127.0.0.1",)), Link(2, "eth0", ("198.51.100.10", "2001:db8::10"))))


@pytest.mark.parametrize(
    ("spec", "idle"),
    [
        ("interfaceName: eth0", None),
        ("interfaceName: '*'", None),
        ("expectedIPs: ['2001:db8:0::10', 192.0.2.1]", None),
        (
            "interfaceName: eth9, expectedIPs: [198.51.100.10]",
            "HostEndpoint/one: there is no interface `eth9`",
        ),
        ("expectedIPs: [192.0.2.1, 192.0.2.2]", "HostEndpoint/one: no interface has 192.0.2.1 or 192.0.2.2"),
    ],
)
def test_a_host_endpoint_that_governs_nothing(spec: str, idle: str | None, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(HOST_ENDPOINT % ("one", spec))
    known = load_config(None, environ={"LABELGATE_NODE": "edge1", "LABELGATE_POLICIES": str(path)})
    (found,) = doctor_policies(known, HERE)
    assert (found.state, found.found == idle) == (("warning", True) if idle else ("ok", False))


UDPLITE_POLICY = """
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: light}
spec:
  selector: all()
  %s
  egress:
  - {action: Allow, protocol: %s}
"""


@pytest.mark.parametrize(
    ("more", "protocol", "checksums", "state"),
    [
        ("types: [Egress]", "UDPLite", True, "warning"),
        ("types: [Egress]", "136", True, "warning"),
        ("types: [Egress]", "UDPLite", False, "ok"),
        ("types: [Egress]", "UDP", True, "ok"),
        ("doNotTrack: true, applyOnForward: true", "UDPLite", True, "ok"),
    ],
)
def test_udplite_behind_conntrack(
    more: str, protocol: str, checksums: bool, state: str, tmp_path: Path
) -> None:
    path = tmp_path / "policy.yaml"
    more = more.replace(", ", "\n  ")
    path.write_text(HOST_ENDPOINT % ("one", "interfaceName: eth0") + UDPLITE_POLICY % (more, protocol))
    known = load_config(None, environ={"LABELGATE_NODE": "edge1", "LABELGATE_POLICIES": str(path)})
    (found,) = doctor_policies(known, HERE, conntrack_checksums=checksums)
    assert states(found) == [state]
    assert (found.found == "GlobalNetworkPolicy/light: UDPLite") == (state == "warning")


FELIX = """
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: %s}
spec: {disableConntrackInvalidCheck: %s}
"""


@pytest.mark.parametrize(
    ("felix", "variable", "state"),
    [
        ({}, "true", "ok"),
        ({"default": "true"}, None, "ok"),
        ({"node.edge1": "true"}, None, "ok"),
        ({"node.edge2": "true"}, None, "warning"),
        ({"default": "true", "node.edge1": "false"}, None, "warning"),
        ({"default": "false", "node.edge1": "true"}, None, "ok"),
        ({"default": "true", "node.edge1": "true"}, "false", "warning"),
    ],
)
def test_udplite_where_invalid_packets_are_judged(
    felix: dict[str, str], variable: str | None, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.yaml"
    policy = UDPLITE_POLICY % ("types: [Egress]", "UDPLite")
    documents = [HOST_ENDPOINT % ("one", "interfaceName: eth0"), policy, *map(FELIX.__mod__, felix.items())]
    path.write_text("".join(documents))
    monkeypatch.setenv("LABELGATE_NODE", "edge1")
    monkeypatch.setenv("LABELGATE_POLICIES", str(path))
    if variable is not None:
        monkeypatch.setenv("LABELGATE_DISABLE_CONNTRACK_INVALID_CHECK", variable)
    (found,) = doctor_policies(load_config(None), HERE)
    assert states(found) == [state]


def test_a_felix_configuration_that_the_daemon_does_not_start_with(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(HOST_ENDPOINT % ("one", "interfaceName: eth0") + FELIX % ("default", "true"))
    config_file = tmp_path / "config.yaml"
    config_file.write_text(f"node: edge1\npolicies: [{path}]\nrevoke: deny-now\n")
    (found,) = doctor_policies(load_config(str(config_file)), HERE, str(config_file))
    assert (found.state, "expected false, as `revoke` is deny-now" in found.found) == ("failure", True)


def test_conntrack_checksums(tmp_path: Path) -> None:
    assert kernel.conntrack_checksums(tmp_path)
    for value, compares in (("0\n", False), ("1\n", True)):
        (tmp_path / "nf_conntrack_checksum").write_text(value)
        assert kernel.conntrack_checksums(tmp_path) == compares


def test_an_interface_that_rules_cannot_name(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(HOST_ENDPOINT % ("one", "expectedIPs: [10.9.0.10]"))
    known = load_config(None, environ={"LABELGATE_NODE": "edge1", "LABELGATE_POLICIES": str(path)})
    (found,) = doctor_policies(known, Links((*HERE.links, Link(3, "eth1;", ("10.9.0.10",)))))
    assert found.state == "warning"
    assert found.found.startswith(
        "HostEndpoint/one: `eth1;` has 10.9.0.10, and a name that rules cannot hold"
    )


def test_a_port_of_a_bridge(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(HOST_ENDPOINT % ("one", "interfaceName: eth3"))
    known = load_config(None, environ={"LABELGATE_NODE": "edge1", "LABELGATE_POLICIES": str(path)})
    (found,) = doctor_policies(known, Links((*HERE.links, Link(3, "eth3", (), Master("br0", "bridge")))))
    assert found.state == "warning"
    assert found.found.startswith("HostEndpoint/one: `eth3` is a port of bridge `br0`")


def test_endpoints_that_the_daemon_does_not_reach() -> None:
    """By its own word, where its policies are not those of the configuration."""
    answer = json.loads((Path(__file__).parent / "recorded" / "status-2.json").read_text())
    answer["outOfReach"] = ["HostEndpoint/one: `eth3` is a port of bridge `br0`"]
    answer["networkNamespace"] = os.stat("/proc/self/ns/net").st_ino
    (found,) = [one for one in examination._daemon(answer, CONFIG, 7) if one.subject == "policies"]
    assert (found.state, found.found) == ("warning", answer["outOfReach"][0])


def test_policies_that_the_daemon_does_not_start_with(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(HOST_ENDPOINT % ("one", "interfaceName: eth0"))
    other = load_config(None, environ={"LABELGATE_NODE": "other", "LABELGATE_POLICIES": str(path)})
    (found,) = doctor_policies(other, HERE)
    assert (found.state, found.found) == ("failure", "no endpoint names node `other`")
    assert found.mend.endswith("edge1")
    path.write_text("kind: [")
    (found,) = doctor_policies(other, HERE)
    assert found.state == "failure"
    assert found.found.startswith(f"1 error, the first: {path}:1: not valid YAML")
    assert list(doctor_policies(CONFIG, HERE)) == []
