"""FelixConfiguration: the values that change verdicts. Those that are not implemented are refused."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, PlainValidator

from labelgate.resources.errors import Finding, Findings, Wrong, describe
from labelgate.resources.metadata import Resource
from labelgate.resources.part import Part, field_names
from labelgate.resources.values import (
    SCTP,
    TCP,
    UDP,
    IPNetwork,
    did_you_mean,
    loose_network,
    port_number,
)
from labelgate.resources.versions import CALICO


def _word(*known: str) -> PlainValidator:
    """Felix reads these words in any case; empty is the default."""
    folded = {word.lower(): word for word in known}

    def parse(value: Any) -> str | None:
        if value == "":
            return None
        if isinstance(value, str) and value.lower() in folded:
            return folded[value.lower()]
        hint = did_you_mean(value, known) if isinstance(value, str) else None
        expected = " or ".join(f"`{word}`" for word in known)
        raise Wrong("felix-value", describe(value), known=expected, hint=hint)

    return PlainValidator(parse, json_schema_input_type=str)


_FAILSAFE_PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP}


def _failsafe_protocol(value: Any) -> int:
    if isinstance(value, str) and value.lower() in _FAILSAFE_PROTOCOLS:
        return _FAILSAFE_PROTOCOLS[value.lower()]
    raise Wrong("felix-failsafe-protocol", describe(value))


class ProtoPort(Part):
    """One failsafe port (E-41)."""

    protocol: Annotated[int, PlainValidator(_failsafe_protocol, json_schema_input_type=str)] = TCP
    """IP protocol number."""
    port: Annotated[int, PlainValidator(port_number("felix-failsafe-port"), json_schema_input_type=int)]
    net: Annotated[
        IPNetwork | None,
        PlainValidator(
            lambda value: None if value == "" else loose_network("felix-failsafe-net")(value),
            json_schema_input_type=str,
        ),
    ] = None
    """The remote side; with it the entry exists only in that family."""


def _prefixes(value: Any) -> str:
    if isinstance(value, str) and all(part.strip() for part in value.split(",")):
        return value
    raise Wrong("felix-prefix", describe(value))


_Accept = Annotated[str | None, _word("Accept", "Return")]
_Deny = Annotated[str | None, _word("Drop", "Reject")]

_TUNNEL = "packets of tunnels are not judged here"
_OFF = "`false`"
UNSUPPORTED: dict[str, tuple[tuple[object, ...], str, str]] = {
    # field: (values without effect on verdicts, what is expected, why)
    "bpfEnabled": ((False,), _OFF, "packets are judged in netfilter hooks, as Calico's iptables mode does"),
    "ipipEnabled": ((False,), _OFF, _TUNNEL),
    "vxlanEnabled": ((False,), _OFF, _TUNNEL),
    "wireguardEnabled": ((False,), _OFF, _TUNNEL),
    "wireguardEnabledV6": ((False,), _OFF, _TUNNEL),
    "ipv6Support": ((True,), "`true`", "IPv6 packets are always judged"),
    "serviceLoopPrevention": (("Disabled",), "`Disabled`", "addresses of services are not known here"),
    "workloadSourceSpoofing": (
        ("Disabled",),
        "`Disabled`",
        "list the addresses in `allowSpoofedSourcePrefixes` of the workload",
    ),
    "floatingIPs": (("Disabled",), "`Disabled`", "addresses are not translated here"),
    "istioAmbientMode": (("Disabled",), "`Disabled`", "redirected packets are not judged here"),
}
_TWINS = (
    ("iptablesFilterAllowAction", "nftablesFilterAllowAction"),
    ("iptablesMangleAllowAction", "nftablesMangleAllowAction"),
    ("iptablesFilterDenyAction", "nftablesFilterDenyAction"),
)


class FelixConfigurationSpec(Part):
    """`spec` of a FelixConfiguration; None is Felix's default."""

    model_config = ConfigDict(extra="allow")

    interface_prefix: Annotated[str | None, PlainValidator(_prefixes, json_schema_input_type=str)] = None
    default_endpoint_to_host_action: Annotated[str | None, _word("Drop", "Accept", "Return")] = None
    iptables_filter_allow_action: _Accept = None
    iptables_mangle_allow_action: _Accept = None
    iptables_filter_deny_action: _Deny = None
    nftables_filter_allow_action: _Accept = None
    nftables_mangle_allow_action: _Accept = None
    nftables_filter_deny_action: _Deny = None
    disable_conntrack_invalid_check: bool | None = None
    chain_insert_mode: Annotated[str | None, _word("Insert", "Append")] = None
    failsafe_inbound_host_ports: list[ProtoPort] | None = None
    failsafe_outbound_host_ports: list[ProtoPort] | None = None
    log_prefix: str | None = None
    vxlan_port: Annotated[
        int | None, PlainValidator(port_number("felix-vxlan-port"), json_schema_input_type=int)
    ] = Field(default=None, alias="vxlanPort")
    allow_vxlan_packets_from_workloads: bool | None = Field(
        default=None, alias="allowVXLANPacketsFromWorkloads"
    )
    allow_ipip_packets_from_workloads: bool | None = Field(
        default=None, alias="allowIPIPPacketsFromWorkloads"
    )

    def findings(self) -> Findings:
        """Values that would change verdicts and are not implemented; twins that disagree."""
        given = self.model_extra or {}
        for field, (harmless, expected, why) in UNSUPPORTED.items():
            value = given.get(field)
            if value is not None and value not in harmless:
                wrong = Wrong("felix-unsupported", describe(value), expected=expected, field=field, why=why)
                yield Finding((field,), wrong)
        words = self.model_dump(by_alias=True)
        for field, twin in _TWINS:
            if words[field] and words[twin] and words[field] != words[twin]:
                found = f"`{words[field]}` and `{words[twin]}`"
                yield Finding((twin,), Wrong("felix-twins", found, field=field, twin=twin))


class FelixConfiguration(Resource):
    """Settings under Felix's names: `default`, then `node.NAME`."""

    version: ClassVar[str] = CALICO
    kind_name: ClassVar[str] = "FelixConfiguration"

    spec: FelixConfigurationSpec = FelixConfigurationSpec()

    @property
    def notices(self) -> tuple[str, ...]:
        """That it has no effect, or the fields that have none, in one text."""
        start = f"{self.location.file}:{self.location.line}: {self.key}"
        name = self.metadata.name
        if name != "default" and not name.startswith("node."):
            return (f"{start}: without effect: found the name `{name}`, expected `default` or `node.NAME`",)
        ignored = sorted(set(self.spec.model_extra or {}) - UNSUPPORTED.keys())
        if not ignored:
            return ()
        known = field_names(type(self.spec))
        # Names of Felix's own are like each other, too.
        hints = (did_you_mean(field, known, likeness=0.9) for field in ignored)
        fields = (f"{field} ({hint})" if hint else field for field, hint in zip(ignored, hints, strict=True))
        return (f"{start}: fields without effect here: {', '.join(fields)}",)
