"""Every text with which a document can be refused, under a stable name.

Golden examples of all of them: `tests/golden/errors/`. Lower case, no full stop, the user's words in
backticks; `{name}` is filled in where the problem is found.
"""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """What is said: the rule that refuses, the text, what is expected, a hint."""

    rule: str | None
    text: str
    expected: str | None = None
    hint: str | None = None


_SUBDOMAIN = "lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit"
_PORTS_NEED = "protocol `TCP`, `UDP` or `SCTP`"
_LABEL_KEY = "`name` or `prefix/name`; the name at most 63 of letters, digits, `-`, `_`, `.`"
_LABEL_VALUE = "at most 63 of letters, digits, `-`, `_`, `.`, beginning and ending with a letter or digit"
_GLOBAL = "`global()` is for the `namespaceSelector` of a rule"

_FILES = {
    "file-missing": Message(None, "no such file or folder"),
    "file-unreadable": Message(None, "cannot be read"),
    "not-utf8": Message(None, "not UTF-8 text", "UTF-8", "convert it: `iconv -f LATIN1 -t UTF-8`"),
    "syntax": Message(None, "not valid YAML", "a YAML or JSON document"),
    "syntax-json": Message(None, "not valid JSON", "a JSON document"),
    "nesting": Message(None, "nested too deeply", "at most {limit} levels"),
    "alias-count": Message(
        None,
        "too many values through aliases",
        "at most {limit} in one document",
        "write the values out, or split the document",
    ),
    "alias-loop": Message(None, "an alias contains itself", "an alias of a finished value"),
    "merge-value": Message(None, "`<<` needs a mapping", "an alias of a mapping, or a list of such aliases"),
    "tag": Message(None, "unknown tag", "plain YAML without tags of applications"),
    "key-duplicate": Message(
        None, "the same field twice", "each field once; the first is at line {line}, column {column}"
    ),
    "key-not-text": Message(None, "a field name that is not text", "text", 'put it in quotes: `"{source}"`'),
}
_DOCUMENTS = {
    "not-a-resource": Message(None, "not a resource", "a mapping with `apiVersion`, `kind` and `metadata`"),
    "api-version": Message("R-1", "unknown or unsupported `apiVersion`", "{supported}"),
    "kind": Message("R-1", "unknown or unsupported `kind` in `{version}`", "{supported}"),
    "resource-duplicate": Message(
        None, "the same resource twice", "each resource once; the first is at {first}"
    ),
    "namespace-refused": Message("R-7", "`{kind}` belongs to the whole cluster", "no `namespace`", "{hint}"),
    "field-unknown": Message(None, "unknown field", "one of {known}"),
    "field-missing": Message(None, "`{field}` is missing", "{what}"),
    "wrong-type": Message(None, "the wrong kind of value", "{what}"),
    "value-unknown": Message(None, "unknown value", "{known}"),
}
_NAMES = {
    "name-length": Message("V-1", "name too long by {excess} characters", "at most {limit} characters"),
    "name": Message("V-2", "illegal name", _SUBDOMAIN),
    "name-network-policy": Message(
        "V-3", "illegal name of a `NetworkPolicy`", "`label` or `label.label`, or `knp.default.` and a name"
    ),
    "name-global-network-policy": Message(
        "V-4", "illegal name of a `GlobalNetworkPolicy`", "at most one dot"
    ),
    "name-tier": Message("V-5", "illegal name of a `Tier`", "no dot"),
    "name-tier-length": Message(
        "V-5", "name of a `Tier` too long by {excess} characters", "at most 63 characters"
    ),
    "label-key": Message("V-6", "illegal label key", _LABEL_KEY),
    "label-value": Message("V-6", "illegal label value", _LABEL_VALUE),
    "annotation-key": Message("V-7", "illegal annotation key", _LABEL_KEY),
    "annotation-size": Message("V-7", "annotations too large", "at most 262144 bytes together"),
    "label-reserved": Message(
        "V-8",
        "reserved label",
        "no label `projectcalico.org/namespace`: it is set by the namespace",
        "for a set of one namespace use a `NetworkSet`",
    ),
    "labels-to-apply-key": Message("V-9", "illegal label key", _LABEL_KEY),
    "labels-to-apply-value": Message("V-9", "illegal label value", _LABEL_VALUE),
    "name-reference": Message("V-73", "illegal name", _SUBDOMAIN),
}
_RULES = {
    "action-missing": Message("V-10", "the rule has no `action`", "`Allow`, `Deny`, `Log` or `Pass`"),
    "action": Message("V-10", "unknown action", "`Allow`, `Deny`, `Log` or `Pass`"),
    "ip-version": Message("V-11", "unknown IP version", "`4` or `6`"),
    "protocol-number": Message("V-12", "protocol number out of range", "1 to 255"),
    "protocol-name": Message(
        "V-13",
        "unknown protocol",
        "`TCP`, `UDP`, `ICMP`, `ICMPv6`, `SCTP`, `UDPLite`, spelled so, or a number",
    ),
    "ports-no-protocol": Message(
        "V-14", "port numbers without a protocol", _PORTS_NEED, "add `protocol: TCP`"
    ),
    "ports-protocol": Message("V-15", "ports with a protocol that has none", _PORTS_NEED),
    "port-range": Message("V-17", "port out of range", "1 to 65535"),
    "port-reversed": Message("V-18", "range reversed", "the smaller port first", "write `{first}:{last}`"),
    "port-text": Message("V-19", "not a port", "a number, a range like `80:90`, or a port name"),
    "port-name": Message(
        "V-20",
        "illegal port name",
        "at most 15 lower-case letters, digits and single `-` inside, with at least one letter",
    ),
    "icmp-protocol": Message("V-21", "`icmp` without an ICMP protocol", "protocol `ICMP` or `ICMPv6`"),
    "icmp-code": Message("V-22", "`code` without `type`", "`type` as well"),
    "icmp-type-range": Message("V-23", "ICMP type out of range", "0 to 254"),
    "icmp-code-range": Message("V-23", "ICMP code out of range", "0 to 255"),
    "icmp-version": Message(
        "V-24",
        "the ICMP protocol does not fit `ipVersion`",
        "`ICMP` with `ipVersion: 4`, `ICMPv6` with `ipVersion: 6`",
    ),
    "not-icmp-protocol": Message("V-25", "`notICMP` without an ICMP protocol", "protocol `ICMP` or `ICMPv6`"),
    "net": Message("V-26", "not a network", "an IPv4 or IPv6 network like `10.0.0.0/8`"),
    "net-host-bits": Message(
        "V-26", "address bits below the mask", "a network address", "write `{net}` or `{host}`"
    ),
    "net-no-mask": Message("V-27", "an address without a mask", "a network", "write `{host}`"),
    "net-families": Message(
        "V-28",
        "IPv4 and IPv6 networks in one rule",
        "one family in all of `nets` and `notNets` of source and destination",
        "make two rules; the first network here is {first}",
    ),
    "net-version": Message(
        "V-29", "the network does not fit `ipVersion: {version}`", "an IPv{version} network"
    ),
    "not-nets-all": Message(
        "V-30", "`notNets` excludes every address", "a smaller network", "this rule could never match"
    ),
    "http-action": Message("V-31", "`http` in a rule that does not allow", "action `Allow`"),
    "http-protocol": Message("V-32", "`http` with another protocol", "protocol `TCP`, or none"),
    "http-egress": Message("V-33", "`http` in an egress rule", "`http` in ingress rules only"),
    "http-method": Message("V-34", "the same method twice", "each method once"),
    "http-path-form": Message("V-34", "not a path match", "either `exact` or `prefix`"),
    "http-path": Message("V-34", "illegal path", "a path that begins with `/`, without `?`, `#` or space"),
    "http": Message(
        "M-40",
        "`http` is not supported",
        "no `http`: packets do not show it, and leaving it out would allow more",
    ),
    "selector": Message("V-35", "the selector cannot be read: {reason}"),
    "selector-global": Message("V-35", "`global()` in this selector", "no `global()`", _GLOBAL),
    "selector-global-combined": Message(
        "V-36", "`global()` together with something else", "`global()` alone"
    ),
    "services": Message(
        None,
        "`services` is not supported yet",
        "`nets`, `selector` or `ports`",
        "select the pods of the service by their labels",
    ),
}
_POLICIES = {
    "untracked-and-prednat": Message(
        "V-40", "`doNotTrack` and `preDNAT` exclude each other", "at most one of them true"
    ),
    "prednat-egress": Message("V-41", "a `preDNAT` policy has egress rules", "ingress rules only"),
    "prednat-type": Message("V-42", "a `preDNAT` policy has type `Egress`", "`types: [Ingress]`"),
    "forward-needed": Message(
        "V-43",
        "`{field}` without `applyOnForward`",
        "`applyOnForward: true`",
        "such a policy also judges forwarded packets; say so with `applyOnForward: true`",
    ),
    "type-twice": Message("V-44", "the same type twice", "each type once"),
    "type": Message("V-44", "unknown type", "`Ingress` or `Egress`"),
    "types-empty": Message(
        "V-44", "an empty list of types", "`Ingress`, `Egress` or both", "leave `types` out to infer them"
    ),
    "too-many": Message("V-48", "too many entries: {count}", "at most {limit}"),
    "selector-length": Message("V-48", "selector too long: {count} characters", "at most {limit}"),
    "hint-twice": Message("V-74", "the same performance hint twice", "each hint once"),
}
_ENDPOINTS = {
    "endpoint-node": Message("V-60", "the host endpoint has no `node`", "the name of the node it belongs to"),
    "endpoint-interface": Message(
        "V-61",
        "neither `interfaceName` nor `expectedIPs`",
        "one of them",
        '`interfaceName: "*"` stands for all interfaces',
    ),
    "interface-name": Message(
        "V-62", "illegal interface name", "`*`, or 1 to 15 of letters, digits, `_`, `.`, `-`"
    ),
    "address": Message("V-63", "not an address", "an IPv4 or IPv6 address without a mask"),
    "endpoint-port-name": Message(
        "V-64",
        "illegal port name",
        "at most 15 lower-case letters, digits and single `-` inside, with at least one letter",
    ),
    "endpoint-port-number": Message("V-64", "port out of range", "1 to 65535"),
    "endpoint-port-protocol": Message("V-64", "a protocol without ports", "`TCP`, `UDP` or `SCTP`"),
    "workload-network": Message(
        "V-65", "not a single address", "an address, or a network of one address like `10.65.0.2/32`"
    ),
    "nat-internal": Message(
        "V-66", "the internal address is not one of the workload's", "an address out of `ipNetworks`"
    ),
    "nat-family": Message("V-66", "addresses of two families", "two IPv4 or two IPv6 addresses"),
    "workload-port-name": Message("V-67", "a port without a name", "`name`, or `hostPort`"),
    "workload-interface": Message(
        "V-68", "the workload has no `interfaceName`", "the name of its interface on the node"
    ),
    "set-net": Message("V-69", "not a network", "an address, or a network like `10.0.0.0/8`"),
    "prefix": Message("V-68", "not a network", "an address, or a network like `10.0.0.0/8`"),
    "tier-order": Message("V-70", "the order of tier `{tier}` is fixed", "`{order}`, or no `order`"),
    "tier-action-fixed": Message("V-70", "the action of tier `{tier}` is fixed", "`{action}`"),
    "tier-action": Message("V-71", "unknown action of a tier", "`Deny` or `Pass`"),
}
_KUBERNETES = {
    "operator": Message("K-2", "unknown operator", "`In`, `NotIn`, `Exists` or `DoesNotExist`"),
    "operator-values": Message("K-2", "`{operator}` without values", "at least one value"),
    "operator-no-values": Message("K-2", "`{operator}` with values", "no `values`"),
    "peer-empty": Message(
        "K-5",
        "an empty peer",
        "`podSelector`, `namespaceSelector` or `ipBlock`",
        "for everyone leave `{field}` out",
    ),
    "peer-both": Message(
        "K-5", "`ipBlock` together with a selector", "`ipBlock` alone", "make two peers of it"
    ),
    "kubernetes-protocol": Message("K-8", "unknown protocol", "`TCP`, `UDP` or `SCTP`"),
    "kubernetes-port": Message("K-9", "not a port", "1 to 65535, or a port name"),
    "end-port": Message("K-9", "`endPort` without a numeric `port`", "`port` as a number"),
    "end-port-reversed": Message("K-9", "`endPort` is smaller than `port`", "`{port}` or more"),
    "block": Message("K-12", "not a network", "an IPv4 or IPv6 network like `10.0.0.0/8`"),
    "block-except": Message("K-12", "not inside `{cidr}`", "a smaller network out of `cidr`"),
    "policy-type": Message("K-13", "unknown type", "`Ingress` or `Egress`"),
    "policy-type-twice": Message("K-13", "the same type twice", "each type once"),
    "pod-address": Message("R-30", "not an address", "an IPv4 or IPv6 address"),
}
_FELIX = {
    "felix-value": Message(None, "unknown value", "{known}"),
    "felix-failsafe-protocol": Message(
        "E-41", "unknown protocol of a failsafe port", "`tcp`, `udp` or `sctp`"
    ),
    "felix-failsafe-port": Message("E-41", "failsafe port out of range", "1 to 65535"),
    "felix-failsafe-net": Message("E-41", "not a network", "an address, or a network like `10.0.0.0/8`"),
    "felix-port": Message(None, "port out of range", "1 to 65535"),
    "felix-prefix": Message(None, "no interface prefix", "a comma list of prefixes like `cali`"),
    "felix-twins": Message(
        None, "`{field}` and `{twin}` disagree", "the same value", "one of the two is enough here"
    ),
    "felix-unsupported": Message(
        None, "`{field}` would change verdicts and is not supported", "{expected}", "{why}"
    ),
}

MESSAGES: dict[str, Message] = {
    **_FILES,
    **_DOCUMENTS,
    **_NAMES,
    **_RULES,
    **_POLICIES,
    **_ENDPOINTS,
    **_KUBERNETES,
    **_FELIX,
}
