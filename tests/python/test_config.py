"""Configuration: every key and its values, who wins, and where each value comes from."""

from __future__ import annotations

import doctest
import json
import os
import re
import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from labelgate import config
from labelgate.agent.generation import FIXED_KEYS
from labelgate.cli import cli
from labelgate.config import (
    ALIASES,
    KEYS,
    Config,
    ConfigError,
    Given,
    control_socket,
    load_config,
    values,
    variable_of,
)
from labelgate.config.values import Listen
from labelgate.flow import HOOKS
from labelgate.netfilter.facts import RulesetFacts
from labelgate.regular import read_regular
from labelgate.resources import FelixConfiguration, load_text
from labelgate.settings import DEFAULT_FAILSAFE_INBOUND, DEFAULT_FAILSAFE_OUTBOUND, Failsafe, Settings

TCP, UDP, SCTP = 6, 17, 132
TEN, FD = ip_network("10.0.0.0/8"), ip_network("fd00::/8")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("labelgate.yaml")


def read(
    path: Path | None = None,
    text: str = "",
    env: dict[str, str] | None = None,
    felix: str = "",
    **more: Any,
) -> Config:
    if path is not None:
        path.write_text(text)
    documents = [item for item in load_text(felix, "felix.yaml") if isinstance(item, FelixConfiguration)]
    return load_config(path and str(path), documents, environ=env or {}, **more)


def value(key: str, given: object) -> Any:
    """What a key holds that was given as a flag."""
    return read(flags={key: given}).sources[key].value


def refusal(**arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(**arguments)
    return str(caught.value)


def felix(name: str, spec: str) -> str:
    head = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\n"
    return f"{head}metadata: {{name: {name}}}\nspec: {spec}\n"


# --- every key -------------------------------------------------------------------------------------------


def test_defaults() -> None:
    """Those of Felix, and ours; interfaces without a file."""
    found = read(node="edge1")
    assert found == Config(
        node="edge1",
        policies=(),
        backend="auto",
        mark_mask=0x1500,
        queue_base=4200,
        queue_maxlen=16384,
        queue_workers=None,
        queue_fanout="cpu",
        queue_cpus=(),
        fail_open=frozenset(),
        malformed="deny",
        stop=None,
        settle=2.0,
        shadow=0,
        event_rate=10,
        event_policy_rate=30,
        event_file=None,
        event_journal=False,
        recorded=256,
        lockout="refuse",
        revoke="new-only",
        start=None,
        state="/var/lib/labelgate",
        socket="/run/labelgate/control.sock",
        watch=True,
        metrics_listen=None,
        metrics_rules=0,
        kernel_counters=True,
        settings=Settings(),
        sources=found.sources,
    )
    defaults = {key: Given(default, "default") for key, (_, default) in KEYS.items()}
    assert found.sources == defaults | {"node": Given("edge1", "command line")}


EVERY_KEY = """
node: edge1
policies: [/etc/labelgate, more.yaml]
backend: NFT
marks: {mask: 0x00e00000}
queues:
  base: 100
  maxlen: 1024
  workers: 3
  fanout: balance
  cpus: [2, "3"]
shadow: 100
events: {rate: 3, policyRate: 4, file: /var/log/labelgate.jsonl, journal: true, recorder: 7}
fail: {raw-prerouting: open, filter-forward: open, filter-input: closed}
malformed: accept
stop: open
settle: 500ms
forwardUnmarked: deny
exemptLoopback: true
kernelCounters: false
chainInsertMode: Append
interfacePrefix: cali,tap
defaultEndpointToHostAction: RETURN
iptablesFilterAllowAction: Return
iptablesMangleAllowAction: Return
nftablesFilterDenyAction: Reject
disableConntrackInvalidCheck: true
failsafeInboundHostPorts: [22, "udp:68", {protocol: UDP, port: 53, net: 10.1.2.3/8}]
failsafeOutboundHostPorts: none
logPrefix: gate
vxlanPort: 4790
allowVXLANPacketsFromWorkloads: false
allowIPIPPacketsFromWorkloads: true
socket: /run/gate.sock
watch: false
metrics: {listen: "[::1]:9191", rules: 50}
start: last-good
lockout: warn
revoke: New-only
state: /var/gate
"""


def test_every_key_in_a_file(file: Path) -> None:
    found = read(file, EVERY_KEY)
    assert found == Config(
        node="edge1",
        policies=("/etc/labelgate", "more.yaml"),
        backend="nft",
        mark_mask=0xE00000,
        queue_base=100,
        queue_maxlen=1024,
        queue_workers=3,
        queue_fanout="balance",
        queue_cpus=(2, 3),
        fail_open=frozenset({"raw-prerouting", "filter-forward"}),
        malformed="accept",
        stop="open",
        settle=0.5,
        shadow=100,
        event_rate=3,
        event_policy_rate=4,
        event_file="/var/log/labelgate.jsonl",
        event_journal=True,
        recorded=7,
        lockout="warn",
        revoke="new-only",
        start="last-good",
        state="/var/gate",
        socket="/run/gate.sock",
        watch=False,
        metrics_listen=Listen("::1", 9191),
        metrics_rules=50,
        kernel_counters=False,
        settings=Settings(
            endpoint_to_host="Return",
            filter_allow="Return",
            filter_deny="Reject",
            invalid_check=False,
            chain_insert_mode="append",
            failsafe_inbound=(Failsafe(TCP, 22), Failsafe(UDP, 68), Failsafe(UDP, 53, TEN)),
            failsafe_outbound=(),
            workload_prefixes=("cali", "tap"),
            workload_vxlan_port=4790,
            workload_ipip_denied=False,
            forward_unmarked="deny",
            exempt_loopback=True,
        ),
        sources=found.sources,
    )
    unset = {f"fail.{hook}" for hook in HOOKS} - {
        "fail.raw-prerouting", "fail.filter-forward", "fail.filter-input",
    }  # fmt: skip
    assert {key for key, given in found.sources.items() if given.source == "default"} == unset
    assert found.sources["queues.maxlen"] == Given(1024, "labelgate.yaml:8")
    assert found.sources["fail.filter-input"] == Given("closed", "labelgate.yaml:14")
    assert found.sources["iptablesFilterDenyAction"] == Given("Reject", "labelgate.yaml:26")


def test_every_key_in_the_environment(file: Path) -> None:
    """The same values by either way, though one has types and the other only texts."""
    from_file = read(file, EVERY_KEY)
    texts = {
        "policies": "/etc/labelgate, more.yaml",
        "failsafeInboundHostPorts": "22, udp:68, udp:10.0.0.0/8:53",
        "failsafeOutboundHostPorts": "none",
        "interfacePrefix": "cali,tap",
        "queues.cpus": "2,3",
    }
    env = {
        variable_of(key): texts.get(key, str(given.value))
        for key, given in from_file.sources.items()
        if given.source != "default"
    }
    from_environment = read(env=env)
    assert {key: given.value for key, given in from_environment.sources.items()} == {
        key: given.value for key, given in from_file.sources.items()
    }
    assert from_environment.settings == from_file.settings
    assert from_environment.sources["settle"] == Given(0.5, "$LABELGATE_SETTLE")


def test_vxlan_from_workloads() -> None:
    """E-20.5."""
    found = read(flags={"allowVXLANPacketsFromWorkloads": True, "vxlanPort": 4790})
    assert found.settings == Settings(workload_vxlan_port=None)


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("settle", "2s", 2.0),
        ("settle", "500ms", 0.5),
        ("settle", "1.5m", 90.0),
        ("settle", "0", 0.0),
        ("settle", 3, 3.0),
        ("settle", 0.25, 0.25),
        ("metrics.listen", "9091", Listen("127.0.0.1", 9091)),
        ("metrics.listen", "10.0.0.1:9091", Listen("10.0.0.1", 9091)),
        ("metrics.listen", "none", None),
        ("marks.mask", "0x7", 7),
        ("marks.mask", 5376, 0x1500),
        ("marks.mask", "0xC0000001", 0xC0000001),
        ("queues.base", 65522, 65522),
        ("policies", "a.yaml", ("a.yaml",)),
        ("logPrefix", "", ""),
        ("failsafeInboundHostPorts", "", DEFAULT_FAILSAFE_INBOUND),
        ("failsafeOutboundHostPorts", " ", DEFAULT_FAILSAFE_OUTBOUND),
        ("failsafeInboundHostPorts", "NONE", ()),
        ("failsafeInboundHostPorts", [], ()),
        ("failsafeInboundHostPorts", "22", (Failsafe(TCP, 22),)),
        ("failsafeInboundHostPorts", "UDP:53, sctp:9", (Failsafe(UDP, 53), Failsafe(SCTP, 9))),
        ("failsafeInboundHostPorts", "tcp:10.0.0.0/8:22", (Failsafe(TCP, 22, TEN),)),
        ("failsafeInboundHostPorts", "tcp:10.1.2.3/8:22", (Failsafe(TCP, 22, TEN),)),
        ("failsafeInboundHostPorts", "tcp:192.0.2.1:22", (Failsafe(TCP, 22, ip_network("192.0.2.1/32")),)),
        ("failsafeInboundHostPorts", "udp:[fd00::/8]:53", (Failsafe(UDP, 53, FD),)),
        ("failsafeInboundHostPorts", [22, "udp:53"], (Failsafe(TCP, 22), Failsafe(UDP, 53))),
        (
            "failsafeInboundHostPorts",
            [{"port": 53, "protocol": "udp", "net": "fd00::/8"}, {"port": "22"}],
            (Failsafe(UDP, 53, FD), Failsafe(TCP, 22)),
        ),
        ("failsafeInboundHostPorts", "22, tcp:22", (Failsafe(TCP, 22),)),
    ],
)  # fmt: skip
def test_values(key: str, given: object, expected: object) -> None:
    """E-41 for failsafe ports."""
    assert value(key, given) == expected


MASK = "expected a mask of exactly three bits, such as 0x1500"
LISTEN = "expected a port, ADDRESS:PORT, [ADDRESS]:PORT or none"
DURATION = "expected a duration such as 2s, 500ms or a number of seconds"


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("node", "", "found ``, expected a name"),
        ("metrics.listen", "host:9091", f"found `host:9091`, {LISTEN}"),
        ("metrics.listen", "10.0.0.256:9091", f"found `10.0.0.256:9091`, {LISTEN}"),
        ("metrics.listen", "0", f"found `0`, {LISTEN}"),
        ("backend", "ipset", "found `ipset`, expected auto, nft or legacy"),
        ("backend", ["nft"], 'found `["nft"]`, expected auto, nft or legacy'),
        ("policies", [], "found `[]`, expected a name or a list of names"),
        ("policies", "a,,b", "found `a,,b`, expected a name or a list of names"),
        ("marks.mask", "0x1100", f"found `0x1100`, {MASK}"),
        ("marks.mask", "0x5500", f"found `0x5500`, {MASK}"),
        ("marks.mask", "0x700000000", "found `0x700000000`, expected a number 1..4294967295"),
        ("queues.base", 65523, "found `65523`, expected a number 0..65522"),
        ("queues.base", "9" * 5000, f"found `{'9' * 5000}`, expected a number 0..65522"),
        ("queues.base", "many", "found `many`, expected a number 0..65522"),
        ("queues.base", True, "found `true`, expected a number 0..65522"),
        ("queues.workers", 65, "found `65`, expected auto, or a number 1..64"),
        ("queues.workers", 0, "found `0`, expected auto, or a number 1..64"),
        ("queues.cpus", "2,x", "found `2,x`, expected a number 0..8191"),
        ("queues.cpus", [], "found `[]`, expected numbers of processors, such as 2,3"),
        ("fail.raw-output", "maybe", "found `maybe`, expected closed or open"),
        ("settle", "soon", f"found `soon`, {DURATION}"),
        ("settle", "9" * 400, f"found `{'9' * 400}`, {DURATION}"),
        ("settle", "-1", f"found `-1`, {DURATION}"),
        ("settle", "2 h", f"found `2 h`, {DURATION}"),
        ("settle", True, f"found `true`, {DURATION}"),
        ("exemptLoopback", "yes", "found `yes`, expected true or false"),
        ("vxlanPort", 0, "found `0`, expected a number 1..65535"),
        ("failsafeInboundHostPorts", {"port": 22},
         'found `{"port": 22}`, expected `none` or a list such as tcp:22, udp:10.0.0.0/8:53'),
    ],
)  # fmt: skip
def test_refused_values(key: str, given: object, message: str) -> None:
    assert refusal(flags={key: given}) == f"command line: {key}: {message}"


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("tcp:0", "tcp:0"),
        ("tcp:70000", "tcp:70000"),
        ("", ""),
        ("icmp:22", "icmp:22"),
        ("10.0.0.0/8:22", "10.0.0.0/8:22"),
        ("tcp:[10.0.0.0/8]:22", "tcp:[10.0.0.0/8]:22"),
        ("tcp:fd00::/8:22", "tcp:fd00::/8:22"),
        ("tcp:[fe80::%eth0/64]:22", "tcp:[fe80::%eth0/64]:22"),
        ("tcp:10.0.0.0/40:22", "tcp:10.0.0.0/40:22"),
        ("tcp:10.0.0.0/255.0.0.0:22", "tcp:10.0.0.0/255.0.0.0:22"),
        ({"port": 1, "net": "x"}, '{"port": 1, "net": "x"}'),
        ({"port": 1, "prot": "tcp"}, '{"port": 1, "prot": "tcp"}'),
        ({"port": 1, "protocol": ["tcp"]}, '{"port": 1, "protocol": ["tcp"]}'),
        ({"protocol": "tcp"}, '{"protocol": "tcp"}'),
        (["tcp"], '["tcp"]'),
        (True, "true"),
    ],
)
def test_refused_failsafe_ports(entry: object, shown: str) -> None:
    """E-41."""
    expected = "proto:cidr:port, proto:port or port with tcp, udp or sctp, an IPv6 CIDR in brackets"
    for key in ("failsafeInboundHostPorts", "failsafeOutboundHostPorts"):
        message = f"command line: {key}: found `{shown}`, expected {expected}"
        assert refusal(flags={key: [22, entry]}) == message


# --- the file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# fine\nquues: {base: 1}", ":2: unknown key `quues`; did you mean `queues`?"),
        ("queues:\n  base: 1\n  bse: 2", ":3: queues: unknown key `bse`; did you mean `base`?"),
        ("queues.base: 1", ":1: unknown key `queues.base`; keys nest, as in `queues: {base: 4200}`"),
        ("fail: {filter_input: open}", ":1: fail: unknown key `filter_input`; did you mean `filter-input`?"),
        ("forwardunmarked: deny", ":1: unknown key `forwardunmarked`; did you mean `forwardUnmarked`?"),
        ("\n\nsettle: never", f":3: settle: found `never`, {DURATION}"),
        ("exemptLoopback: yes", ":1: exemptLoopback: found `yes`, expected true or false"),
        ("settle: 1:30", f":1: settle: found `1:30`, {DURATION}"),
        ("marks: 5376", ":1: marks: expected keys with values"),
        ("- node: a", ":1: expected keys with values"),
        ("node: a\nbackend: nft\nbackend: auto", ":3: backend: has another value at labelgate.yaml:2"),
        (
            "nftablesFilterDenyAction: Drop\niptablesFilterDenyAction: Reject",
            ":2: iptablesFilterDenyAction: has another value at labelgate.yaml:1",
        ),
        ("node: [a", ":1: expected ',' or ']', but got '<stream end>'"),
        ("policies: &p [*p]", ":1: found unconstructable recursive node"),
        ("node: a\n---\nnode: b", ":2: but found another document"),
    ],
)
def test_refused_files(file: Path, text: str, message: str) -> None:
    assert refusal(path=file, text=text) == f"labelgate.yaml{message}"


def test_an_unknown_key_without_a_likeness_lists_the_known_ones(file: Path) -> None:
    message = "labelgate.yaml:1: queues: unknown key `x`; known: base, maxlen, workers, fanout, cpus"
    assert refusal(path=file, text="queues: {x: 1}") == message


def test_a_pipe_is_read_once_but_not_followed(file: Path) -> None:
    os.mkfifo(file)
    with pytest.raises(ConfigError, match=f"^{file}: not a regular file$"):
        load_config(str(file), environ={}, read=read_regular)
    ours, theirs = os.pipe()
    os.write(theirs, b"node: edge1\n")
    os.close(theirs)
    assert load_config(f"/dev/fd/{ours}", environ={}).node == "edge1"
    os.close(ours)


def test_a_file_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^labelgate.yaml: No such file or directory$"):
        load_config("labelgate.yaml", environ={})
    file.write_bytes(b"node: \xff")
    with pytest.raises(ConfigError, match=r"^labelgate.yaml: .*can't decode"):
        load_config("labelgate.yaml", environ={})


@pytest.mark.parametrize("text", ["", "# nothing", "backend:\nqueues: ~\nmarks: {mask: null}\nfail: {}"])
def test_null_is_as_good_as_absent(file: Path, text: str) -> None:
    assert read(file, text) == read()


def test_values_of_a_file_are_texts(file: Path) -> None:
    """YAML's own readings (a flag, an octal number, a date) never come in between."""
    assert [read(file, f"node: {name}").node for name in ("on", "012", "2026-01-01", "1e3")] == [
        "on", "012", "2026-01-01", "1e3",
    ]  # fmt: skip


# --- the environment -------------------------------------------------------------------------------------


def test_variables_are_distinct() -> None:
    names = [variable_of(key).replace("_", "") for key in (*KEYS, *ALIASES)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("node", "LABELGATE_NODE"),
        ("queues.base", "LABELGATE_QUEUES_BASE"),
        ("fail.mangle-prerouting", "LABELGATE_FAIL_MANGLE_PREROUTING"),
        ("forwardUnmarked", "LABELGATE_FORWARD_UNMARKED"),
        ("failsafeInboundHostPorts", "LABELGATE_FAILSAFE_INBOUND_HOST_PORTS"),
        ("allowVXLANPacketsFromWorkloads", "LABELGATE_ALLOW_VXLAN_PACKETS_FROM_WORKLOADS"),
        ("allowIPIPPacketsFromWorkloads", "LABELGATE_ALLOW_IPIP_PACKETS_FROM_WORKLOADS"),
    ],
)
def test_names_of_variables(key: str, variable: str) -> None:
    assert variable_of(key) == variable


def test_underscores_inside_of_a_key_may_be_left_out() -> None:
    """As in Felix's own variables."""
    found = read(env={"LABELGATE_FORWARDUNMARKED": "deny", "LABELGATE_QUEUESBASE": "7", "OTHER": "x"})
    assert (found.settings.forward_unmarked, found.queue_base) == ("deny", 7)


def test_either_of_felix_names_for_one_value() -> None:
    found = read(env={"LABELGATE_NFTABLES_FILTER_DENY_ACTION": "reject"})
    assert found.settings == Settings(filter_deny="Reject")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"LABELGATE_QUEUE_BASE": "1"},
            "environment: unknown variable `LABELGATE_QUEUE_BASE`; did you mean `LABELGATE_QUEUES_BASE`?",
        ),
        (
            {"LABELGATE_FORWARDUNMARKED": "deny", "LABELGATE_FORWARD_UNMARKED": "accept"},
            "$LABELGATE_FORWARD_UNMARKED: forwardUnmarked: has another value at $LABELGATE_FORWARDUNMARKED",
        ),
        (
            {"LABELGATE_STOP": "never"},
            "$LABELGATE_STOP: stop: found `never`, expected remove, keep or open",
        ),
    ],
)
def test_refused_variables(env: dict[str, str], message: str) -> None:
    assert refusal(env=env) == message


@pytest.mark.parametrize("prefix", ["a b", "*", "a+", "a/b", "!a", "ü", "abcdefghijklmno", "cali,a b"])
def test_a_prefix_that_no_rule_can_hold_is_refused(prefix: str) -> None:
    """The daemon would refuse it at the start."""
    part = prefix.rpartition(",")[2]
    expected = f"found `{part}`, expected at most 14 letters, digits and `_.:@-`"
    assert refusal(env={"LABELGATE_INTERFACE_PREFIX": prefix}).endswith(f"interfacePrefix: {expected}")
    with pytest.raises(ValueError, match="cannot be written"):
        RulesetFacts((), (), settings=Settings(workload_prefixes=(part,)))


def test_prefixes_that_rules_can_hold() -> None:
    prefixes = ("cali", "abcdefghijklmn", "a.b-c_d", "A9@:")
    assert read(env={"LABELGATE_INTERFACE_PREFIX": ",".join(prefixes)}).settings.workload_prefixes == prefixes
    assert RulesetFacts((), (), settings=Settings(workload_prefixes=prefixes))


def test_workers_that_have_no_queue_numbers_are_refused(file: Path) -> None:
    message = refusal(path=file, text="queues: {base: 65000, workers: 64}")
    assert message == (
        f"{file}:1: queues.workers: found 64, expected 38 at most, as each has 14 of 65536 queue numbers, "
        "and queues.base is 65000"
    )
    assert read(file, "queues: {base: 65000, workers: 38}").queue_workers == 38
    assert read(file, "queues: {base: 65000, workers: auto}").queue_workers is None


SERVICE = {
    "SERVICE_HOST": "10.96.0.7",
    "SERVICE_PORT": "9091",
    "SERVICE_PORT_METRICS": "9091",
    "PORT": "tcp://10.96.0.7:9091",
    "PORT_9091_TCP": "tcp://10.96.0.7:9091",
    "PORT_9091_TCP_PROTO": "tcp",
    "PORT_9091_TCP_PORT": "9091",
    "PORT_9091_TCP_ADDR": "10.96.0.7",
    "PORT_53_UDP": "udp://10.96.0.7:53",
    # Docker's links.
    "NAME": "/web/labelgate",
    "ENV_PATH": "/usr/bin",
}


@pytest.mark.parametrize("name", ["LABELGATE", "LABELGATE_METRICS"])
def test_variables_of_a_service_are_passed_over(name: str) -> None:
    """The kubelet gives them to every container of the namespace of a Service named `labelgate`."""
    assert read(env={f"{name}_{form}": value for form, value in SERVICE.items()}) == read(env={})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "9091"),
        ("SERVICE", "10.96.0.7"),
        ("SERVICE_PORT", "any"),
        ("PORT_9091", "tcp://10.96.0.7:9091"),
        ("PORT_X_TCP", "tcp://10.96.0.7:9091"),
        ("NAME", "edge1"),
        ("QUEUES_PORT", "7"),
    ],
)
def test_what_no_service_sets_is_refused(variable: str, value: str) -> None:
    assert "unknown variable" in refusal(env={f"LABELGATE_{variable}": value})


def test_a_client_asks_for_nothing_but_the_socket() -> None:
    """A probe does not fail for what only the daemon is to judge."""
    assert control_socket(None, {"LABELGATE_TYPO": "1", "LABELGATE_STOP": "x"}) == KEYS["socket"][1]
    assert control_socket(None, {"LABELGATE_SOCKET": "/run/a"}) == "/run/a"
    assert control_socket("/run/b", {"LABELGATE_SOCKET": "/run/a"}) == "/run/b"
    assert control_socket(None, {"LABELGATE_SOCKET": ""}) == KEYS["socket"][1]
    with pytest.raises(
        ConfigError, match=r"\$LABELGATE_SOCKET: socket: found `a`, expected an absolute path"
    ):
        control_socket(None, {"LABELGATE_SOCKET": "a"})


def test_a_probe_asks_whatever_else_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABELGATE_TYPO", "1")
    done = CliRunner().invoke(cli, ["status", "--socket", str(tmp_path / "none")])
    assert (done.exit_code, "no daemon is running" in done.output) == (3, True)


def test_an_empty_variable_is_not_set(file: Path) -> None:
    """Only of failsafe ports it says something: the default ones (E-41)."""
    text = "backend: nft\nfailsafeInboundHostPorts: none"
    found = read(file, text, {"LABELGATE_BACKEND": "", "LABELGATE_FAILSAFE_INBOUND_HOST_PORTS": ""})
    assert (found.backend, found.settings) == ("nft", Settings())


# --- FelixConfiguration, and who wins --------------------------------------------------------------------


def test_felix_configuration() -> None:
    """Each value under Felix's name; a document is honoured only as `default` or for the node."""
    documents = "---\n".join(
        [
            felix(
                "default",
                "{interfacePrefix: 'cali,tap', defaultEndpointToHostAction: ACCEPT, chainInsertMode: Append,"
                " iptablesFilterAllowAction: Return, iptablesFilterDenyAction: Reject, vxlanPort: 4790,"
                " disableConntrackInvalidCheck: true, allowIPIPPacketsFromWorkloads: true,"
                " failsafeInboundHostPorts:"
                " [{protocol: udp, port: 68}, {protocol: TCP, port: 22, net: 10.0.0.0/8}],"
                " failsafeOutboundHostPorts: []}",
            ),
            felix("node.edge1", "{nftablesFilterDenyAction: Drop}"),
            felix("node.edge2", "{interfacePrefix: veth}"),
        ]
    )
    found = read(felix=documents, node="edge1")
    assert found.settings == Settings(
        endpoint_to_host="Accept",
        filter_allow="Return",
        filter_deny="Drop",
        invalid_check=False,
        chain_insert_mode="append",
        failsafe_inbound=(Failsafe(UDP, 68), Failsafe(TCP, 22, TEN)),
        failsafe_outbound=(),
        workload_prefixes=("cali", "tap"),
        workload_vxlan_port=4790,
        workload_ipip_denied=False,
    )
    assert found.sources["vxlanPort"] == Given(4790, "felix.yaml:1: FelixConfiguration/default")
    assert found.sources["iptablesFilterDenyAction"] == Given(
        "Drop", "felix.yaml:6: FelixConfiguration/node.edge1"
    )


def test_felix_configuration_has_no_keys_of_ours() -> None:
    """It is a field without effect there, whatever its name means here."""
    assert read(felix=felix("default", "{settle: 5s, forwardUnmarked: deny}")) == read()


LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("felix.yaml:1: FelixConfiguration/default", {"felix": felix("default", "{vxlanPort: 1}")}),
    (
        "felix.yaml:6: FelixConfiguration/node.edge1",
        {"felix": felix("default", "{vxlanPort: 1}") + "---\n" + felix("node.edge1", "{vxlanPort: 2}")},
    ),
    ("labelgate.yaml:1", {"text": "vxlanPort: 3"}),
    ("$LABELGATE_VXLAN_PORT", {"env": {"LABELGATE_VXLAN_PORT": "4"}}),
    ("command line", {"flags": {"vxlanPort": 5}}),
]


@pytest.mark.parametrize("count", range(len(LAYERS) + 1))
def test_who_wins(file: Path, count: int) -> None:
    """Each layer wins over those before it."""
    arguments: dict[str, Any] = {"path": file, "node": "edge1"}
    for _, layer in LAYERS[:count]:
        arguments |= layer
    expected = Given(count, LAYERS[count - 1][0]) if count else Given(4789, "default")
    assert read(**arguments).sources["vxlanPort"] == expected


def test_a_flag_that_is_not_given_says_nothing(file: Path) -> None:
    assert read(file, "backend: nft", flags={"backend": None}).backend == "nft"


def test_an_unknown_flag_is_refused() -> None:
    assert refusal(flags={"bakend": "nft"}) == "command line: unknown key `bakend`; did you mean `backend`?"


def test_prefixes_of_host_facts() -> None:
    """They belong to the interfaces that the facts list."""
    found = read(felix=felix("default", "{interfacePrefix: veth}"), prefixes=("tap",))
    assert found.sources["interfacePrefix"] == Given(("tap",), "host facts")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, Given("box.example", "host name")),
        ({"text": "node: a"}, Given("a", "labelgate.yaml:1")),
        ({"text": "node: a", "env": {"LABELGATE_NODE": "b"}}, Given("b", "$LABELGATE_NODE")),
        ({"text": "node: a", "env": {"LABELGATE_NODE": "b"}, "node": "c"}, Given("c", "command line")),
    ],
)
def test_node(
    file: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], expected: Given
) -> None:
    """By default the lower-cased host name; it says which FelixConfiguration counts."""
    monkeypatch.setattr(socket, "gethostname", lambda: "Box.Example")
    documents = felix(f"node.{expected.value}", "{vxlanPort: 1}")
    found = read(file, felix=documents, **arguments)
    assert (found.node, found.sources["node"]) == (expected.value, expected)
    assert found.settings.workload_vxlan_port == 1


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELGATE_BACKEND", "legacy")
    assert load_config(None).backend == "legacy"


PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_names_what_only_a_restart_changes() -> None:
    """Each key, or the group that it belongs to."""
    (sentence,) = re.findall(r"A reload that changes (.*?) is refused", PAGE.read_text("utf-8"), re.DOTALL)
    named = set(re.findall(r"`([\w.]+)`", sentence))
    assert {key for key in FIXED_KEYS if not {key, key.partition(".")[0]} & named} == set()


def test_the_page_on_configuration(file: Path) -> None:
    """The table has every key with variable and default, the example loads, the lists are the defaults."""
    page = PAGE.read_text()
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:4]] for line in page.splitlines() if line[:3] == "| `"
    ]
    assert [row[:2] for row in rows] == [[key, variable_of(key)] for key in KEYS]
    stated = {key: text for key, _, text in rows if text not in ("", "host name", "E-40")}
    found = read(flags=stated)
    assert {key: found.sources[key].value for key in stated} == {
        key: default
        for key, (_, default) in KEYS.items()
        if default not in (None, ()) and not key.startswith("failsafe")
    }
    example = page.split("```yaml\n")[1].split("```")[0]
    assert read(file, example).fail_open == {"filter-forward"}
    lists = [line.partition(": ")[2].replace(" ", ":") for line in page.splitlines() if "bound: " in line]
    assert [value("failsafeInboundHostPorts", text.replace(",:", ",")) for text in lists] == [
        DEFAULT_FAILSAFE_INBOUND,
        DEFAULT_FAILSAFE_OUTBOUND,
    ]


def test_examples_in_docstrings() -> None:
    assert [doctest.testmod(module) for module in (config, values)] == [(0, 3), (0, 1)]


def test_the_effective_values_are_printed_as_they_are_read(file: Path) -> None:
    """`labelgate config`: its output, written as a file, means the same."""
    file = file.with_suffix(".conf")
    file.write_text(EVERY_KEY)
    runner = CliRunner()
    arguments = ["config", "--config", str(file), "-f", "."]
    printed = runner.invoke(cli, [*arguments, "-o", "json"])
    assert printed.exit_code == 0
    found = json.loads(printed.output)
    assert found["settle"] == {"value": "0.5", "source": f"{file}:17"}
    assert found["queues.workers"]["source"] == f"{file}:9"
    flags = {key: item["value"] or None for key, item in found.items()}
    effective, again = read(file, EVERY_KEY), read(flags=flags)
    assert {key: item.value for key, item in again.sources.items()} == {
        key: item.value for key, item in effective.sources.items()
    }
    assert "settle" in runner.invoke(cli, arguments).output


VERBS_WITH_CONFIG = {
    "bench": "bench match",
    "check": "check -f {}",
    "config": "config",
    "connectivity": "connectivity -f {} --matrix --port 80",
    "diff": "diff {} {}",
    "doctor": "doctor",
    "explain": "explain -f {} --src 192.0.2.5",
    "lint": "lint {}",
    "replay": "replay {} {}",
}


@pytest.mark.parametrize("verb", VERBS_WITH_CONFIG)
def test_a_file_that_is_not_there_does_not_load(verb: str, tmp_path: Path) -> None:
    """Exit code 3, of every verb, also where nothing would be read of it."""
    words = VERBS_WITH_CONFIG[verb].replace("{}", str(tmp_path)).split()
    for path, why in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        result = CliRunner().invoke(cli, [*words, "--config", str(path)])
        assert result.stderr.splitlines()[-1] == f"Error: {path}: {why}"
        assert result.exit_code == 3
