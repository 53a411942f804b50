"""Interfaces and routing rules as a real kernel tells them."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from labelgate.links import Links, LinkWatch, interface_name, read_links
from labelgate.netfilter.routing import RoutingRule, read_routing_rules
from labelgate.settings import HostFacts
from namespaces import a_new_one, enter_a_new_one


@pytest.fixture(autouse=True)
def _namespace() -> Iterator[None]:
    with a_new_one():
        yield


def ip(*words: str | bytes) -> None:
    subprocess.run(["ip", *words], check=True)


def wait_for_change(watch: LinkWatch) -> Links:
    for _ in range(20):
        assert select.select([watch], [], [], 30)[0], "nothing was told within 30 s"
        if (links := watch.poll()) is not None:
            return links
    raise AssertionError("events, but no change")


def make_pair() -> None:
    """veth eth0 with addresses, as a container has it."""
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "cali111")
    ip("addr", "add", "198.51.100.10/24", "dev", "eth0")
    ip("addr", "add", "2001:db8::10/64", "dev", "eth0", "nodad")


def test_names_indexes_and_addresses() -> None:
    make_pair()
    links = read_links()
    assert links.host_facts == HostFacts({"lo": (), "cali111": (), "eth0": ("198.51.100.10", "2001:db8::10")})
    assert {(int(index), name.split("@")[0].strip()) for index, name, *_ in ip_link()} == set(links.indexes)


def ip_link() -> list[list[str]]:
    done = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True)
    return [line.split(":") for line in done.stdout.splitlines()]


def test_a_name_that_is_not_utf_8() -> None:
    """Rules and policies are text: nobody can name the interface, and its packets are those of all others."""
    ip("link", "add", "eth0", "type", "veth", "peer", "name", b"cali\xff\xc3\xa9")
    ip("addr", "add", "10.9.0.10/24", "dev", b"cali\xff\xc3\xa9")
    links = read_links()
    (odd,) = (link for link in links.links if not link.can_be_named)
    assert (odd.name, odd.addresses) == ("cali/ff\u00e9", ("10.9.0.10",))
    assert links.host_facts == HostFacts({"lo": (), "eth0": ()})
    assert interface_name(odd.index) == odd.name


def test_a_port_of_a_bridge() -> None:
    """It is heard of, and what it is a part of is known."""
    ip("link", "add", "p0", "type", "veth", "peer", "name", "p1")
    ip("link", "add", "br0", "type", "bridge")
    with LinkWatch() as watch:
        assert {link.master for link in watch.links.links} == {None}
        ip("link", "set", "p0", "master", "br0")
        links = watch.poll()
        assert links
        assert {link.name: link.master for link in links.links if link.master} == {"p0": ("br0", "bridge")}
        ip("link", "set", "p0", "nomaster")
        links = watch.poll()
        assert links
        assert {link.master for link in links.links} == {None}


def test_the_local_side_of_a_point_to_point_address() -> None:
    ip("link", "add", "p0", "type", "veth", "peer", "name", "p1")
    ip("addr", "add", "10.0.0.1", "peer", "10.0.0.2", "dev", "p0")
    assert read_links().host_facts.interfaces["p0"] == ("10.0.0.1",)


def test_changes_are_told_once() -> None:
    with LinkWatch() as watch:
        assert list(watch.links.host_facts.interfaces) == ["lo"]
        assert watch.poll() is None
        ip("link", "add", "cali222", "type", "veth", "peer", "name", "x")
        assert "cali222" in wait_for_change(watch).host_facts.interfaces
        ip("addr", "add", "10.9.0.10/24", "dev", "cali222")
        assert wait_for_change(watch).host_facts.interfaces["cali222"] == ("10.9.0.10",)
        ip("link", "set", "cali222", "name", "cali333")
        assert "cali333" in wait_for_change(watch).host_facts.interfaces
        ip("link", "del", "cali333")
        assert list(wait_for_change(watch).host_facts.interfaces) == ["lo"]
        while select.select([watch], [], [], 0.1)[0]:
            assert watch.poll() is None


def test_routing_rules_with_a_mark() -> None:
    ip("rule", "add", "priority", "100", "fwmark", "0x4000/0x4000", "table", "100")
    ip("-6", "rule", "add", "priority", "200", "not", "fwmark", "0xca6c", "table", "51820")
    assert read_routing_rules() == (
        RoutingRule(4, 100, 0x4000, 0x4000),
        RoutingRule(6, 200, 0xCA6C, 0xFFFFFFFF),
    )


def test_each_thread_sees_its_own_namespace() -> None:
    make_pair()

    def elsewhere() -> list[str]:
        enter_a_new_one()
        with LinkWatch() as watch:
            ip("link", "add", "wg0", "type", "veth", "peer", "name", "wg1")
            return sorted(wait_for_change(watch).host_facts.interfaces)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result(timeout=30) == ["lo", "wg0", "wg1"]
    assert sorted(read_links().host_facts.interfaces) == ["cali111", "eth0", "lo"]
