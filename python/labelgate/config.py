"""Configuration: every key, what it may hold, and where each effective value comes from.

Built-in defaults, then the FelixConfiguration documents `default` and `node.NAME`, then the configuration
file, then `LABELGATE_<KEY>` in the environment, then flags: what comes later wins. Unknown keys are errors
everywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from labelgate.flow import HOOKS, PROTOCOLS, Hook
from labelgate.resources import FelixConfiguration
from labelgate.settings import (
    DEFAULT_FAILSAFE_INBOUND,
    DEFAULT_FAILSAFE_OUTBOUND,
    Failsafe,
    Settings,
)


class ConfigError(ValueError):
    """A configuration value cannot be read: says where, what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody gave it."""

    value: Any
    source: str
    """`file:line`, the variable, the flag, the document, or `default`."""


@dataclass(frozen=True)
class Config:
    """The effective configuration."""

    node: str
    policies: tuple[str, ...]
    backend: Literal["auto", "nft", "legacy"]
    mark_mask: int
    queue_base: int
    queue_maxlen: int
    fail_open: frozenset[Hook]
    """Hooks whose packets pass when nobody listens or the queue is full."""
    malformed: Literal["deny", "accept"]
    stop: Literal["remove", "keep", "open"] | None
    """None: `keep` as a service, else `remove`."""
    settle: float
    """Seconds."""
    settings: Settings
    sources: Mapping[str, Given]
    """Every key with its effective value and source."""


# Readers: text or a YAML value in, a typed value out; ValueError says what was expected.


def _word(*words: str) -> Callable[[Any], str]:
    folded = {word.lower(): word for word in words}

    def read(value: Any) -> str:
        if isinstance(value, str) and value.lower() in folded:
            return folded[value.lower()]
        raise ValueError(f"expected {', '.join(words[:-1])} or {words[-1]}")

    return read


def _number(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"0[xX][0-9a-fA-F]+|[0-9]+", value):
            value = int(value, 0 if value[:2].lower() == "0x" else 10)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(f"expected a number {low}..{high}")

    return read


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError("expected true or false")


def _mask(value: Any) -> int:
    mask = _number(1, 0xFFFF_FFFF)(value)
    if mask.bit_count() != 3:
        raise ValueError("expected a mask of exactly three bits, such as 0x1500")
    return mask


_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}


def _duration(value: Any) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|)", str(value))
    if match is None or isinstance(value, bool):
        raise ValueError("expected a duration such as 2s, 500ms or a number of seconds")
    return float(match[1]) * _UNITS[match[2]]


def _texts(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, list | tuple) and parts:
        names = tuple(part.strip() for part in parts if isinstance(part, str) and part.strip())
        if len(names) == len(parts):
            return names
    raise ValueError("expected a name or a list of names")


def _text(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("expected a name")


def _vxlan_port(value: Any) -> int:
    return _number(1, 65535)(value)


def _failsafes(default: tuple[Failsafe, ...]) -> Callable[[Any], tuple[Failsafe, ...]]:
    """E-41: `proto:cidr:port`, `proto:port`, `port`; `none` empties, the empty text is the default."""

    def read(value: Any) -> tuple[Failsafe, ...]:
        if isinstance(value, str):
            if not value.strip():
                return default
            if value.strip().lower() == "none":
                return ()
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, list | tuple):
            raise ValueError("expected `none` or a list such as tcp:22, udp:10.0.0.0/8:53")
        return tuple(_failsafe(entry) for entry in value)

    return read


_FAILSAFE = re.compile(
    r"(?:(?P<protocol>[A-Za-z]+):)?(?:(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[0-9./]+)):)?(?P<port>[0-9]+)"
)


def _failsafe(entry: Any) -> Failsafe:
    expected = "expected proto:cidr:port, proto:port or port, an IPv6 CIDR in brackets"
    if isinstance(entry, Failsafe):
        return entry
    if isinstance(entry, Mapping):
        net, protocol = entry.get("net"), entry.get("protocol") or "tcp"
        text = f"{protocol}:" + (f"[{net}]:" if net else "") + str(entry.get("port"))
        if set(entry) - {"net", "protocol", "port"}:
            raise ValueError("expected an object with protocol, port and net")
    else:
        text = str(entry)
    match = _FAILSAFE.fullmatch(text)
    if match is None:
        raise ValueError(f"found `{text}`: {expected}")
    name = (match["protocol"] or "tcp").lower()
    if name not in ("tcp", "udp", "sctp"):
        raise ValueError(f"found `{text}`: expected protocol tcp, udp or sctp")
    port = _number(1, 65535)(match["port"])
    net = match["v6"] or match["v4"]
    try:
        return Failsafe(PROTOCOLS[name], port, None if net is None else ip_network(net, strict=False))
    except ValueError:
        raise ValueError(f"found `{text}`: {expected}") from None


_CLOSED_OPEN = _word("closed", "open")

KEYS: Mapping[str, tuple[Callable[[Any], Any], Any]] = {
    "node": (_text, None),
    "policies": (_texts, ()),
    "backend": (_word("auto", "nft", "legacy"), "auto"),
    "marks.mask": (_mask, 0x1500),
    "queues.base": (_number(0, 65535 - 2 * len(HOOKS)), 4200),
    "queues.maxlen": (_number(1, 1_000_000), 16384),
    "queues.workers": (_number(1, 1), 1),
    **{f"fail.{hook}": (_CLOSED_OPEN, "closed") for hook in HOOKS},
    "malformed": (_word("deny", "accept"), "deny"),
    "stop": (_word("remove", "keep", "open"), None),
    "settle": (_duration, 2.0),
    "forwardUnmarked": (_word("return", "accept", "deny"), "return"),
    "exemptLoopback": (_flag, False),
    # Felix's own names.
    "chainInsertMode": (_word("insert", "append"), "insert"),
    "interfacePrefix": (_texts, ("cali",)),
    "defaultEndpointToHostAction": (_word("Drop", "Accept", "Return"), "Drop"),
    "iptablesFilterAllowAction": (_word("Accept", "Return"), "Accept"),
    "iptablesMangleAllowAction": (_word("Accept", "Return"), "Accept"),
    "iptablesFilterDenyAction": (_word("Drop", "Reject"), "Drop"),
    "disableConntrackInvalidCheck": (_flag, False),
    "failsafeInboundHostPorts": (_failsafes(DEFAULT_FAILSAFE_INBOUND), DEFAULT_FAILSAFE_INBOUND),
    "failsafeOutboundHostPorts": (_failsafes(DEFAULT_FAILSAFE_OUTBOUND), DEFAULT_FAILSAFE_OUTBOUND),
    "logPrefix": (_text, "calico-packet"),
    "vxlanPort": (_vxlan_port, 4789),
    "allowVXLANPacketsFromWorkloads": (_flag, False),
    "allowIPIPPacketsFromWorkloads": (_flag, False),
}
"""Every key with its reader and its default. Nested keys are dotted."""

ALIASES = {
    f"nftables{rest}": f"iptables{rest}"
    for rest in ("FilterAllowAction", "MangleAllowAction", "FilterDenyAction")
}
"""The two names that Felix has for one value, by backend."""


def load_config(
    path: str | None,
    felix: Iterable[FelixConfiguration] = (),
    node: str | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    prefixes: tuple[str, ...] | None = None,
) -> Config:
    """The effective configuration.

    `flags` are dotted keys, `prefixes` the workload prefixes of a host facts file.

    Raises:
        ConfigError: naming the place, the key, what was found and what was expected.
    """
    environ = os.environ if environ is None else environ
    outer = {**_from_file(path), **_from_environment(environ)}
    name = node or cast(str, outer["node"].value if "node" in outer else "")
    given = {**_from_felix(felix, name), **outer}
    if prefixes is not None:
        given["interfacePrefix"] = Given(prefixes, "host facts")
    given.update({key: Given(value, f"--{key}") for key, value in (flags or {}).items() if value is not None})
    effective = {key: _read(key, given.get(key)) for key in KEYS}
    return _config(node or effective["node"].value or "", effective)


def _read(key: str, given: Given | None) -> Given:
    reader, default = KEYS[key]
    if given is None:
        return Given(default, "default")
    try:
        return Given(reader(given.value), given.source)
    except ValueError as error:
        text = str(error)
        found = "" if text.startswith("found") else f"found `{given.value}`, "
        raise ConfigError(f"{given.source}: {key}: {found}{text}") from None


def _known(key: str, source: str) -> str:
    key = ALIASES.get(key, key)
    if key in KEYS:
        return key
    raise ConfigError(f"{source}: unknown key `{key}`; known keys: {', '.join(KEYS)}")


def _from_file(path: str | None) -> dict[str, Given]:
    if path is None:
        return {}
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if root is None:
        return {}
    given: dict[str, Given] = {}
    for key, value, source in _leaves(root, path):
        if key in given and given[key].value != value:
            raise ConfigError(
                f"{source}: `{key}` was given before with another value, at {given[key].source}"
            )
        given[key] = Given(value, source)
    return given


_GROUPS = ("marks", "queues", "fail")


def _leaves(root: yaml.Node, path: str, group: str = "") -> Iterator[tuple[str, Any, str]]:
    place = f"{path}:{root.start_mark.line + 1}"
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{place}: {group + ': ' if group else ''}expected an object of keys and values")
    for key_node, value_node in root.value:
        name = str(key_node.value)
        source = f"{path}:{key_node.start_mark.line + 1}"
        if not group and name in _GROUPS:
            yield from _leaves(value_node, path, name)
            continue
        key = _known(f"{group}.{name}" if group else name, source)
        yield key, yaml.SafeLoader("").construct_object(value_node, deep=True), source


def variable_of(key: str) -> str:
    """The environment variable of a key.

    >>> variable_of("queues.base"), variable_of("forwardUnmarked"), variable_of("fail.raw-output")
    ('LABELGATE_QUEUES_BASE', 'LABELGATE_FORWARD_UNMARKED', 'LABELGATE_FAIL_RAW_OUTPUT')
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", key)
    return "LABELGATE_" + re.sub(r"[.-]", "_", words).upper()


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    names = {variable_of(key): key for key in (*KEYS, *ALIASES)}
    given = {}
    for variable, value in environ.items():
        if not variable.startswith("LABELGATE_"):
            continue
        if variable not in names:
            raise ConfigError(f"${variable}: unknown variable; known: {', '.join(names)}")
        given[_known(names[variable], f"${variable}")] = Given(value, f"${variable}")
    return given


def _from_felix(documents: Iterable[FelixConfiguration], node: str) -> dict[str, Given]:
    by_name = {document.metadata.name: document for document in documents}
    given = {}
    for name in ("default", f"node.{node}"):
        if (document := by_name.get(name)) is None:
            continue
        source = f"{document.location.file}:{document.location.line}: {document.key}"
        for field, value in document.spec.model_dump(by_alias=True, exclude_none=True).items():
            key = ALIASES.get(field, field)
            if key in KEYS:
                given[key] = Given(_felix_value(key, value), source)
    return given


def _felix_value(key: str, value: Any) -> Any:
    if key.startswith("failsafe"):
        return [
            Failsafe(entry["protocol"], entry["port"], entry.get("net")) for entry in cast(list[Any], value)
        ]
    return value


def _config(node: str, effective: Mapping[str, Given]) -> Config:
    def value(key: str) -> Any:
        return effective[key].value

    settings = Settings(
        endpoint_to_host=value("defaultEndpointToHostAction"),
        filter_allow=value("iptablesFilterAllowAction"),
        filter_deny=value("iptablesFilterDenyAction"),
        invalid_check=not value("disableConntrackInvalidCheck"),
        chain_insert_mode=value("chainInsertMode"),
        failsafe_inbound=value("failsafeInboundHostPorts"),
        failsafe_outbound=value("failsafeOutboundHostPorts"),
        workload_prefixes=value("interfacePrefix"),
        workload_vxlan_port=None if value("allowVXLANPacketsFromWorkloads") else value("vxlanPort"),
        workload_ipip_denied=not value("allowIPIPPacketsFromWorkloads"),
        forward_unmarked=value("forwardUnmarked"),
        exempt_loopback=value("exemptLoopback"),
    )
    return Config(
        node=node,
        policies=value("policies"),
        backend=value("backend"),
        mark_mask=value("marks.mask"),
        queue_base=value("queues.base"),
        queue_maxlen=value("queues.maxlen"),
        fail_open=frozenset(hook for hook in HOOKS if value(f"fail.{hook}") == "open"),
        malformed=value("malformed"),
        stop=value("stop"),
        settle=value("settle"),
        settings=settings,
        sources=effective,
    )
