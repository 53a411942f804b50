"""Flow logs, whatever they hold, as recorded flows."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from labelgate.analysis import flow_logs
from labelgate.analysis.flow_logs import from_lines
from labelgate.cli import cli
from recorded_traffic import LINES, OTHER, POD, fates, replay

WRONG = ['{"src": "10.0.0.1"}', "no JSON", '{"src": "10.0.0.1", "dst": "::1", "protocol": 6}']


def test_flow_logs(recorded_policy: str, tmp_path: Path) -> None:
    path = tmp_path / "flows.jsonl"
    path.write_text("\n".join([*map(json.dumps, LINES), *WRONG]), encoding="utf-8")
    (report,) = replay(recorded_policy, str(path), code=1)
    assert fates(report) == {"allowed": (1, 5), "denied": (2, 5)}
    assert report["read"] == {"lines: cannot be read": 3}
    assert [problem.split(":")[0] for problem in report["problems"]] == ["line 4", "line 5", "line 6"]
    text = ",".join(LINES[1]) + "\n" + ",".join(map(str, LINES[1].values())) + "\n"
    (report,) = replay(recorded_policy, "-", "--format", "csv", code=1, text=text.encode())
    assert fates(report) == {"denied": (1, 4)}


HEADER = "src,dst,protocol,dport"
DENIED_ROW, ALLOWED_ROW = f"{OTHER},{POD},tcp,8081", f"{OTHER},{POD},tcp,8080"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_of_spreadsheets(recorded_policy: str, end: str, mark: str) -> None:
    text = mark + end.join([HEADER, DENIED_ROW, "", ALLOWED_ROW, ""])
    (report,) = replay(recorded_policy, "-", "--format", "csv", code=1, text=text.encode())
    assert (fates(report), report["read"]) == ({"allowed": (1, 1), "denied": (1, 1)}, {})


def test_a_line_that_is_no_csv_is_counted(recorded_policy: str) -> None:
    lines = [
        HEADER, f"{OTHER},{'x' * 200_000},tcp,1", ALLOWED_ROW, f'{OTHER},"{POD},tcp,8081', DENIED_ROW,
        f"{OTHER},{POD},tcp", f"{DENIED_ROW},", f"{OTHER},::1,tcp,80", "",
    ]  # fmt: skip
    (report,) = replay(recorded_policy, "-", "--format", "csv", code=1, text="\n".join(lines).encode())
    assert fates(report) == {"allowed": (1, 1), "denied": (1, 1)}
    assert report["read"] == {"lines: cannot be read": 5}
    told = [
        "line 2: not CSV: field larger than field limit", "line 4: not CSV: unexpected end of data",
        "line 6: found 3 fields, expected 4, as the first line has", "line 7: found 5 fields, expected 4",
        "line 8: dst: found `::1`, expected the IP version of src",
    ]  # fmt: skip
    begin = [problem[: len(words)] for problem, words in zip(report["problems"], told, strict=True)]
    assert begin == told


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("x" * 200_000, "line 1: found `field larger"),
        (
            "a,b",
            "line 1: found columns `a, b`, expected `src` or `source_ip` among them, separated by commas",
        ),
        ("src;dst;protocol", "line 1: found columns `src;dst;protocol`, expected `src` or"),
        (ALLOWED_ROW, f"line 1: found columns `{OTHER}, {POD}, tcp, 8080`, expected `src` or"),
        ("\n\nsrc,dst", "line 3: found columns `src, dst`, expected `protocol` or `proto` among them"),
        ("src,dst,protocol,dst", "line 1: found column `dst` twice, expected each once"),
    ],
)
def test_csv_without_names_is_refused(recorded_policy: str, head: str, message: str) -> None:
    text = f"{head}\n{ALLOWED_ROW}\n"
    result = CliRunner().invoke(cli, ["replay", recorded_policy, "-", "--format", "csv"], input=text)
    assert (result.exit_code, message in result.output) == (3, True), result.output


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_line_longer_than_any_is_passed_over(
    recorded_policy: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Without being held: no more than so many characters are asked for at once."""
    monkeypatch.setattr(flow_logs, "MOST_CHARACTERS", 100)
    row = json.dumps({"src": OTHER, "dst": POD, "protocol": 6, "dport": 8080})
    long = ["{" * 101, "{" * 350]
    if form == "csv":
        row, long = ALLOWED_ROW, [ALLOWED_ROW + "," * 100, f'"{"," * 500}']
    lines = [*([HEADER] if form == "csv" else []), row, long[0], row, long[1]]
    for end in ("\n", "\r\n"):
        (report,) = replay(
            recorded_policy, "-", "--format", form, code=0, text=end.join([*lines, row]).encode()
        )
        assert fates(report) == {"allowed": (3, 3)}
        assert report["read"] == {"lines: cannot be read": 2}
        first = lines.index(long[0]) + 1
        words = "found more than 100 characters, expected a flow"
        assert report["problems"][0] == f"line {first}: {words}"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_encodings(recorded_policy: str, encoding: str, form: str, pack: Callable[[bytes], bytes]) -> None:
    """What is no UTF-8 is in somebody else's fields: addresses and numbers are ASCII."""
    rows = {"jsonl": json.dumps(LINES[1] | {"note": "Büro"}, ensure_ascii=False)}
    rows["csv"] = f"note,{HEADER}\nBüro,{DENIED_ROW}"
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    text = pack((mark + rows[form]).encode(encoding))
    (report,) = replay(recorded_policy, "-", "--format", form, code=1, text=text)
    assert (report["fates"]["denied"]["flows"], report["read"]) == (1, {})


def test_both_ip_versions_in_one_log(recorded_policy: str) -> None:
    six = {"src": "2001:db8::5", "dst": "2001:db8::10", "protocol": 6, "dport": 80}
    lines = "\n".join(json.dumps(line) for line in [LINES[0], six, LINES[1], six | {"dst": "2001:db8::11"}])
    (report,) = replay(
        recorded_policy, "-", "--format", "jsonl", "--node", "edge1", code=1, text=lines.encode()
    )
    assert fates(report) == {"allowed": (2, 6), "denied": (1, 4), "not of this node": (1, 1)}


@pytest.mark.parametrize("name", ["packets", "replies", "bytes", "replyBytes"])
def test_a_number_that_is_no_count(recorded_policy: str, name: str) -> None:
    lines = [json.dumps(LINES[0] | {name: 2**53 + more}) for more in (0, 1)]
    (report,) = replay(recorded_policy, "-", "--format", "jsonl", code=0, text="\n".join(lines).encode())
    assert (report["fates"]["allowed"]["flows"], report["read"]) == (1, {"lines: cannot be read": 1})
    assert report["problems"] == [f"line 2: {name}: found `{2**53 + 1}`, expected a number 0..{2**53}"]


def test_flow_logs_in_gzip(recorded_policy: str, tmp_path: Path) -> None:
    """Of one member or of many, whatever the name says."""
    line = json.dumps(LINES[1]).encode() + b"\n"
    for zipped in (gzip.compress(line * 3), gzip.compress(line) * 3, gzip.compress(line * 3) + bytes(512)):
        for name in ("flows.jsonl.gz", "flows.jsonl"):
            path = tmp_path / name
            path.write_bytes(zipped)
            (report,) = replay(recorded_policy, str(path), code=1)
            assert fates(report) == {"denied": (3, 12)}


def test_what_was_read_of_a_damaged_log_counts(recorded_policy: str, tmp_path: Path) -> None:
    """And it is told where the damage is; the exit code says that the answer is not whole."""
    line = json.dumps(LINES[1]).encode() + b"\n"
    path, whole = tmp_path / "flows.jsonl.gz", gzip.compress(line)
    for damaged in (whole * 2 + whole[:20], whole * 2 + whole[:9] + b"\xff" * 20, whole * 2 + b"no gzip"):
        path.write_bytes(damaged)
        result = CliRunner().invoke(cli, ["replay", recorded_policy, str(path), "-o", "json"])
        report = json.loads(result.stdout)
        assert (result.exit_code, report["broken"].split(": ")[0]) == (3, "behind line 2")
        assert fates(report) == {"denied": (2, 8)}
        assert f"Error: {path}: {report['broken']}; what was read before is counted above" in result.stderr
        world = CliRunner().invoke(cli, ["suggest", "-f", recorded_policy, str(path), "--unanswered"])
        assert (world.exit_code, f"{path}: behind line 2: " in world.stderr) == (3, True), world.output
        assert f"# {path}: behind line 2: " in world.stdout
        assert "kind: StagedNetworkPolicy" in world.stdout
    for damaged in (whole[:-9], whole[:9]):
        path.write_bytes(damaged)
        result = CliRunner().invoke(cli, ["replay", recorded_policy, str(path)])
        assert (result.exit_code, f"Error: {path}: behind line " in result.output) == (3, True)


CALICO = {
    "start_time": 1_790_000_000, "source_ip": OTHER, "source_name": "-", "source_name_aggr": "pub",
    "source_port": None, "dest_ip": POD, "dest_name": "web-0", "dest_port": 8081, "dest_type": "wep",
    "proto": "tcp", "action": "deny", "reporter": "src",
    "policies": {"all_policies": ["0|default|default.a|deny|-1"]},
    "packets_in": 2, "packets_out": 5, "bytes_in": 200, "bytes_out": 500, "num_flows": 1,
}  # fmt: skip


def test_flow_logs_of_calico_count_from_the_end_that_reports() -> None:
    found = {}
    for reporter in ("src", "dst"):
        line = json.dumps(CALICO | {"reporter": reporter}).encode()
        (block,) = from_lines(io.BytesIO(line), "jsonl").blocks
        assert (block.sport.tolist(), block.dport.tolist(), block.denied.tolist()) == ([0], [8081], [True])
        columns = (block.packets, block.replies, block.bytes, block.reply_bytes)
        found[reporter] = [int(column[0]) for column in columns]
    assert found == {"src": [5, 2, 500, 200], "dst": [2, 5, 200, 500]}


def test_protocols_of_calicos_flow_logs() -> None:
    words = {"icmp": 1, "tcp": 6, "udp": 17, "ipip": 4, "esp": 50, "icmp6": 58, "sctp": 132, "47": 47}
    lines = "\n".join(json.dumps(CALICO | {"proto": word}) for word in words)
    (block,) = from_lines(io.BytesIO(lines.encode()), "jsonl").blocks
    assert block.protocol.tolist() == list(words.values())


def test_what_calico_has_aggregated_is_not_judged() -> None:
    source = from_lines(io.BytesIO(json.dumps(CALICO | {"source_ip": None}).encode()), "jsonl")
    assert (list(source.blocks), source.problems) == ([], ["line 1: src: missing"])


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp", 136])
def test_a_port_that_is_missing_is_not_port_0(protocol: str | int) -> None:
    flow = {"src": OTHER, "dst": POD, "protocol": protocol}
    lines = [
        {**flow, "dst_port": 8080},
        {**flow, "dport": None},
        {**flow, "dport": 0},
        {**flow, "protocol": 47},
    ]
    source = from_lines(io.BytesIO("\n".join(map(json.dumps, lines)).encode()), "jsonl")
    (block,) = source.blocks
    assert (len(block), block.dport.tolist()) == (2, [0, 0])
    said = "dport: missing: a packet of this protocol has one"
    assert source.problems == [f"line 1: {said}", f"line 2: {said}"]


@pytest.mark.parametrize(
    ("kind", "action", "verdict"),
    [
        ("deny", "Deny", "deny"),
        ("deny", None, "deny"),  # End of tier.
        ("log", "Log", "deny"),
        ("log", "Log", "allow"),
        ("staged-deny", "Deny", "allow"),  # It passes.
    ],
)
def test_events_are_flow_logs(kind: str, action: str | None, verdict: str) -> None:
    """As `labelgate events -o json` writes them: denied is what the verdict says, not the rule."""
    event = {
        "time": 1_790_000_000_000, "kind": kind, "generation": 2, "hook": "filter-input", "verdict": verdict,
        "src": OTHER, "dst": POD, "protocol": 1, "sport": None, "dport": None, "icmp": [8, 0], "in": "eth0",
        "action": action, "policy": "GlobalNetworkPolicy/edge", "rule": 0, "tier": "default",
    }  # fmt: skip
    (block,) = from_lines(io.BytesIO(json.dumps(event).encode()), "jsonl").blocks
    assert (block.dport.tolist(), block.denied.tolist()) == ([8 << 8], [verdict == "deny"])


def test_what_is_no_object_is_named(recorded_policy: str) -> None:
    text = f'[]\n{json.dumps(LINES[1])}\n"eth0"\n'
    (report,) = replay(recorded_policy, "-", "--format", "jsonl", code=1, text=text.encode())
    assert report["problems"] == [
        "line 1: found `[]`, expected an object", "line 3: found `eth0`, expected an object",
    ]  # fmt: skip


def test_an_answer_is_true_or_false(recorded_policy: str) -> None:
    text = json.dumps(LINES[1] | {"answered": 7}) + "\n" + json.dumps(LINES[1] | {"answered": "true"})
    (report,) = replay(recorded_policy, "-", "--format", "jsonl", code=1, text=text.encode())
    assert report["problems"] == ["line 1: answered: found `7`, expected true or false"]
