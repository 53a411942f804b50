"""Configuration: every key, what it may hold, and where each effective value comes from.

Built-in defaults, then the FelixConfiguration documents `default` and `node.NAME`, then the configuration
file, then `LABELGATE_<KEY>` in the environment, then flags: what comes later wins. Unknown keys are errors
everywhere. Values of the file are read as the texts that they are, so that file and environment mean the
same: `yes` is no flag, and `1:30` no number of seconds.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from labelgate.config import values
from labelgate.config.values import Listen
from labelgate.flow import HOOKS, Hook
from labelgate.processors import QUEUE_NUMBERS, QUEUES_EACH
from labelgate.settings import (
    DEFAULT_FAILSAFE_INBOUND,
    DEFAULT_FAILSAFE_OUTBOUND,
    Failsafe,
    Settings,
)

if TYPE_CHECKING:
    from labelgate.resources import FelixConfiguration


class ConfigError(ValueError):
    """A configuration value cannot be read: says where, what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody gave it."""

    value: Any
    source: str
    """`file:line`, `$VARIABLE`, `command line`, the document, or where a built-in value comes from."""


@dataclass(frozen=True)
class Config:
    """The effective configuration."""

    node: str
    policies: tuple[str, ...]
    backend: Literal["auto", "nft", "legacy"]
    mark_mask: int
    queue_base: int
    queue_maxlen: int
    queue_workers: int | None
    """None: as `labelgate.processors` finds."""
    queue_fanout: Literal["balance", "cpu"]
    """How the kernel spreads packets over the queues of several workers."""
    queue_cpus: tuple[int, ...]
    """Where workers run, one after the other; empty: as `labelgate.processors` finds."""
    fail_open: frozenset[Hook]
    """Hooks whose packets pass when nobody listens or the queue is full."""
    malformed: Literal["deny", "accept"]
    stop: Literal["remove", "keep", "open"] | None
    """None: `keep` as a service, else `remove`."""
    settle: float
    """Seconds."""
    shadow: int
    """One decision in so many is asked of the reference as well; 0: none."""
    event_rate: int
    """Events of one rule each second and worker; 0: none."""
    event_policy_rate: int
    """The same of one policy, but one of each of its rules."""
    recorded: int
    """Denied packets that the flight recorder of each worker holds; 0: none."""
    event_journal: bool
    """Whether events are written to the journal."""
    event_file: str | None
    """Where events are written as JSON lines."""
    start: Literal["strict", "last-good"] | None
    """Where the files are not valid at the start. None: `last-good` as a service, else `strict`."""
    state: str
    """Folder of the state."""
    socket: str
    """Path of the control socket."""
    lockout: Literal["refuse", "warn"]
    """What a change of files comes to that would lock somebody out."""
    revoke: Literal["new-only", "deny-now"]
    """Whether connections that a new policy denies go on."""
    watch: bool
    """Whether files are followed as they change."""
    metrics_listen: Listen | None
    """Where metrics and health are told over HTTP; None: nowhere."""
    metrics_rules: int
    """So many rules have a metric of their own, those met first."""
    kernel_counters: bool
    """Whether rules count that kernel rules answer, with nfacct."""
    settings: Settings
    sources: Mapping[str, Given]
    """Every key with its effective value and source."""


# --- the keys --------------------------------------------------------------------------------------------

_CLOSED_OPEN = values.word("closed", "open")

KEYS: Mapping[str, tuple[Callable[[Any], Any], Any]] = {
    "node": (values.text, None),
    "policies": (values.texts, ()),
    "backend": (values.word("auto", "nft", "legacy"), "auto"),
    "marks.mask": (values.mask, 0x1500),
    "queues.base": (values.number(0, 65536 - 2 * len(HOOKS)), 4200),
    "queues.maxlen": (values.number(1, 1_000_000), 16384),
    "queues.workers": (values.workers, None),
    "queues.fanout": (values.word("balance", "cpu"), "cpu"),
    "queues.cpus": (values.cpus, ()),
    **{f"fail.{hook}": (_CLOSED_OPEN, "closed") for hook in HOOKS},
    "malformed": (values.word("deny", "accept"), "deny"),
    "stop": (values.word("remove", "keep", "open"), None),
    "settle": (values.read_duration, 2.0),
    "shadow": (values.number(0, 1_000_000_000), 0),
    "events.rate": (values.number(0, 1000), 10),
    "events.policyRate": (values.number(0, 1000), 30),
    "events.file": (values.path, None),
    "events.journal": (values.flag, False),
    "events.recorder": (values.number(0, 4096), 256),
    "lockout": (values.word("refuse", "warn"), "refuse"),
    "revoke": (values.word("new-only", "deny-now"), "new-only"),
    "start": (values.word("strict", "last-good"), None),
    "state": (values.path, "/var/lib/labelgate"),
    "watch": (values.flag, True),
    "metrics.listen": (values.listen, None),
    "metrics.rules": (values.number(0, 10_000), 0),
    "kernelCounters": (values.flag, True),
    "socket": (values.path, "/run/labelgate/control.sock"),
    "forwardUnmarked": (values.word("return", "accept", "deny"), "return"),
    "exemptLoopback": (values.flag, False),
    # Felix's own names.
    "chainInsertMode": (values.word("insert", "append"), "insert"),
    "interfacePrefix": (values.prefixes, ("cali",)),
    "defaultEndpointToHostAction": (values.word("Drop", "Accept", "Return"), "Drop"),
    "iptablesFilterAllowAction": (values.word("Accept", "Return"), "Accept"),
    "iptablesMangleAllowAction": (values.word("Accept", "Return"), "Accept"),
    "iptablesFilterDenyAction": (values.word("Drop", "Reject"), "Drop"),
    "disableConntrackInvalidCheck": (values.flag, False),
    "failsafeInboundHostPorts": (values.failsafes(DEFAULT_FAILSAFE_INBOUND), DEFAULT_FAILSAFE_INBOUND),
    "failsafeOutboundHostPorts": (values.failsafes(DEFAULT_FAILSAFE_OUTBOUND), DEFAULT_FAILSAFE_OUTBOUND),
    "logPrefix": (values.any_text, "calico-packet"),
    "vxlanPort": (values.number(1, 65535), 4789),
    "allowVXLANPacketsFromWorkloads": (values.flag, False),
    "allowIPIPPacketsFromWorkloads": (values.flag, False),
}
"""Every key with its reader and its default. Nested keys are dotted."""


def value_text(key: str, value: Any) -> str:
    """A value as the text that its reader takes; empty where there is none.

    >>> value_text("marks.mask", 0x1500), value_text("failsafeInboundHostPorts", ())
    ('0x1500', 'none')
    """
    if key == "marks.mask":
        return f"{value:#x}"
    if key.startswith("failsafe") and not value:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


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
    host: str | None = None,
    read: Callable[[str], bytes] = lambda path: Path(path).read_bytes(),
) -> Config:
    """The effective configuration.

    `node` and `flags` (by dotted keys; None is not given) come from the command line, `prefixes` are the
    workload prefixes of a host facts file. Without any other name the node is the lower-cased host name,
    or `host`. `read` reads the file; what it cannot is an OSError.

    Raises:
        ConfigError: naming the place, the key, what was found and what was expected.
    """
    given = {"node": Given(host or host_name(), "host name"), **_from_file(path, read)}
    given |= _from_environment(os.environ if environ is None else environ)
    if prefixes is not None:
        given["interfacePrefix"] = Given(prefixes, "host facts")
    for key, value in {"node": node, **(flags or {})}.items():
        if value is not None:
            given[_known(key, "command line")] = Given(value, "command line")
    given = {**_from_felix(felix, _read("node", given["node"]).value), **given}
    return _config({key: _read(key, given.get(key)) for key in KEYS})


def control_socket(given: str | None, environ: Mapping[str, str] | None = None) -> str:
    """Where a client asks: as given, by $LABELGATE_SOCKET, or as built in.

    What else is set is the daemon's to judge: a client is not in its way.

    Raises:
        ConfigError: that is no absolute path.
    """
    variable = variable_of("socket")
    value = (os.environ if environ is None else environ).get(variable)
    named = Given(value, f"${variable}") if value else None
    found: str = _read("socket", named if given is None else Given(given, "command line")).value
    return found


def documented_settings(felix: Iterable[FelixConfiguration], node: str | None) -> Settings:
    """What the documents alone say of a node; None: of one that none of them names.

    Raises:
        ConfigError: as `load_config`.
    """
    given = _from_felix(felix, node)
    return _config({key: _read(key, given.get(key)) for key in KEYS}).settings


def config_of(texts: Mapping[str, str], source: str, flags: Mapping[str, Any]) -> Config:
    """The configuration that `kept_texts` was made of, but for flags (as in `load_config`).

    Raises:
        ConfigError: this version does not know a key, or what it holds.
    """
    given = {_known(key, source): Given(text, source) for key, text in texts.items()}
    given |= {key: Given(value, "command line") for key, value in flags.items() if value is not None}
    return _config({key: _read(key, given.get(key)) for key in KEYS})


def kept_texts(config: Config) -> dict[str, str]:
    """What somebody has set, by key, as texts that can be read again."""
    texts = {key: value_text(key, given.value) for key, given in config.sources.items()}
    unset = {key for key, given in config.sources.items() if given.value in (None, ())}
    return {
        key: text
        for key, text in texts.items()
        if config.sources[key].source != "default" and (text == "none" or key not in unset)
    }


def host_name() -> str:
    """The node's name where nobody sets one."""
    return socket.gethostname().lower()


def _read(key: str, given: Given | None) -> Given:
    reader, default = KEYS[key]
    if given is None:
        return Given(default, "default")
    try:
        return Given(reader(given.value), given.source)
    except ValueError as error:
        text = str(error)
        found = "" if text.startswith("found") else f"found `{values.shown(given.value)}`, "
        raise ConfigError(f"{given.source}: {key}: {found}{text}") from None


def _known(key: str, source: str) -> str:
    """The key by its one name."""
    key = ALIASES.get(key, key)
    if key in KEYS:
        return key
    raise _unknown("key", key, [*KEYS, *ALIASES], source)


def _unknown(what: str, name: str, known: Iterable[str], source: str) -> ConfigError:
    folded = {word.lower(): word for word in known}
    close = get_close_matches(name.lower(), folded, n=1, cutoff=0.7)
    hint = f"; did you mean `{folded[close[0]]}`?" if close else f"; known: {', '.join(folded.values())}"
    return ConfigError(f"{source}: unknown {what} `{name}`{hint}")


def _gathered(found: Iterable[tuple[str, Any, str]]) -> dict[str, Given]:
    """(key, value, source) of one layer, where nothing may be said twice in different ways."""
    given: dict[str, Given] = {}
    for key, value, source in found:
        if key in given and given[key].value != value:
            raise ConfigError(f"{source}: {key}: has another value at {given[key].source}")
        given[key] = Given(value, source)
    return given


# --- the file --------------------------------------------------------------------------------------------


def _from_file(path: str | None, read: Callable[[str], bytes]) -> dict[str, Given]:
    if path is None:
        return {}
    try:
        root = yaml.compose(read(path).decode(), Loader=yaml.SafeLoader)
        return {} if root is None else _gathered(_leaves(root, path))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: {error.problem or error.context}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


_NULL = "tag:yaml.org,2002:null"
"""Absent and null are the same."""
_PATHS = [key.split(".") for key in (*KEYS, *ALIASES)]
_GROUPS = {path[0] for path in _PATHS if len(path) > 1}


def _leaves(root: yaml.Node, path: str, group: str = "") -> Iterator[tuple[str, Any, str]]:
    place = f"{path}:{root.start_mark.line + 1}"
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{place}: {group and group + ': '}expected keys with values")
    for key_node, value_node in root.value:
        source = f"{path}:{key_node.start_mark.line + 1}"
        name = str(key_node.value)
        is_group = not group and name in _GROUPS
        key = "" if is_group else _nested(group, name, source)
        if value_node.tag == _NULL:
            continue
        if is_group:
            yield from _leaves(value_node, path, name)
        else:
            yield key, yaml.BaseLoader("").construct_object(value_node, deep=True), source


def _nested(group: str, name: str, source: str) -> str:
    if "." in name:
        raise ConfigError(f"{source}: unknown key `{name}`; keys nest, as in `queues: {{base: 4200}}`")
    key = f"{group}.{name}" if group else name
    if key in KEYS or key in ALIASES:
        return _known(key, source)
    level = [known for *above, known in _PATHS if above == ([group] if group else [])]
    if group:
        raise _unknown("key", name, level, f"{source}: {group}")
    raise _unknown("key", name, [*level, *sorted(_GROUPS)], source)


# --- environment and FelixConfiguration ------------------------------------------------------------------


def variable_of(key: str) -> str:
    """The environment variable of a key; one without the underscores inside of the key means the same.

    >>> variable_of("queues.base"), variable_of("forwardUnmarked"), variable_of("fail.raw-output")
    ('LABELGATE_QUEUES_BASE', 'LABELGATE_FORWARD_UNMARKED', 'LABELGATE_FAIL_RAW_OUTPUT')
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", key)
    return _PREFIX + re.sub(r"[.-]", "_", words).upper()


_PREFIX = "LABELGATE_"


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    return _gathered(_variables(environ))


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    names = {variable_of(key): key for key in (*KEYS, *ALIASES)}
    folded = {_folded(variable): key for variable, key in names.items()}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(_PREFIX):
            continue
        key = folded.get(_folded(variable))
        if key is None and _is_of_a_service(variable, value):
            continue
        if key is None:
            raise _unknown("variable", variable, names, "environment")
        key = ALIASES.get(key, key)
        # An empty variable counts as not set; only for lists of failsafes does it say something (E-41).
        if value or key.startswith("failsafe"):
            yield key, value, f"${variable}"


def _is_of_a_service(variable: str, value: str) -> bool:
    """Whether the kubelet, or Docker, has set it for a Service or a link `labelgate` or `labelgate-...`.

    >>> _is_of_a_service("LABELGATE_PORT", "tcp://10.0.0.1:80"), _is_of_a_service("LABELGATE_PORT", "80")
    (True, False)
    """
    return any(form.fullmatch(variable) and re.match(begins, value) for form, begins in _SERVICE_FORMS)


_SERVICE_FORMS = tuple(
    (re.compile(rf"{_PREFIX}([A-Z0-9_]+_)?{form}"), begins)
    for form, begins in {
        "SERVICE_HOST": "", r"SERVICE_PORT(_\w+)?": "[0-9]", "PORT": "[a-z]+://",
        r"PORT_[0-9]+_[A-Z]+": "[a-z]+://", r"PORT_[0-9]+_[A-Z]+_(PROTO|PORT|ADDR)": "",
        "NAME": "/[^/]+/", r"ENV_\w+": "",
    }.items()
)  # fmt: skip


def _folded(variable: str) -> str:
    return variable.removeprefix(_PREFIX).replace("_", "")


def _from_felix(documents: Iterable[FelixConfiguration], node: str | None) -> dict[str, Given]:
    by_name = {document.metadata.name: document for document in documents}
    given = {}
    for name in ("default", *((f"node.{node}",) if node is not None else ())):
        if (document := by_name.get(name)) is None:
            continue
        source = f"{document.location.file}:{document.location.line}: {document.key}"
        spec = document.spec
        read = spec.model_dump(by_alias=True, exclude_none=True, include=set(type(spec).model_fields))
        for field, value in read.items():
            key = ALIASES.get(field, field)
            if key.startswith("failsafe"):
                value = [Failsafe(entry["protocol"], entry["port"], entry.get("net")) for entry in value]
            given[key] = Given(value, source)
    return given


def _config(effective: Mapping[str, Given]) -> Config:
    def value(key: str) -> Any:
        return effective[key].value

    if value("revoke") == "deny-now" and value("disableConntrackInvalidCheck"):
        source = effective["disableConntrackInvalidCheck"].source
        raise ConfigError(f"{source}: disableConntrackInvalidCheck: expected false, as `revoke` is deny-now")
    workers, base = value("queues.workers"), value("queues.base")
    most = (QUEUE_NUMBERS - base) // QUEUES_EACH
    if workers is not None and workers > most:
        source = effective["queues.workers"].source
        raise ConfigError(
            f"{source}: queues.workers: found {workers}, expected {most} at most, as each has "
            f"{QUEUES_EACH} of {QUEUE_NUMBERS} queue numbers, and queues.base is {base}"
        )
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
        node=value("node"),
        policies=value("policies"),
        backend=value("backend"),
        mark_mask=value("marks.mask"),
        queue_base=value("queues.base"),
        queue_maxlen=value("queues.maxlen"),
        queue_workers=value("queues.workers"),
        queue_fanout=value("queues.fanout"),
        queue_cpus=value("queues.cpus"),
        fail_open=frozenset(hook for hook in HOOKS if value(f"fail.{hook}") == "open"),
        malformed=value("malformed"),
        stop=value("stop"),
        settle=value("settle"),
        shadow=value("shadow"),
        event_rate=value("events.rate"),
        event_policy_rate=value("events.policyRate"),
        event_file=value("events.file"),
        event_journal=value("events.journal"),
        recorded=value("events.recorder"),
        lockout=value("lockout"),
        revoke=value("revoke"),
        start=value("start"),
        state=value("state"),
        socket=value("socket"),
        watch=value("watch"),
        metrics_listen=value("metrics.listen"),
        metrics_rules=value("metrics.rules"),
        kernel_counters=value("kernelCounters"),
        settings=settings,
        sources=effective,
    )
