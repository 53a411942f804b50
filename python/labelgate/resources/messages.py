"""Every text with which a document can be refused, under a stable name.

Golden examples of all of them: `tests/golden/errors/`. Lower case, no full stop, the user's words in
backticks; `{name}` is filled in where the problem is found. A hint may be replaced by a better one there.
"""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """What is said: the rule that refuses, the text, what is expected, a hint."""

    rule: str | None
    text: str
    expected: str
    hint: str


_SUBDOMAIN = "lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit"
_PORT_NAME = "at most 15 lower-case letters, digits and single `-` inside, with at least one letter"
_LABEL_KEY = "`name` or `prefix/name`; the name at most 63 of letters, digits, `-`, `_`, `.`"
_LABEL_VALUE = "at most 63 of letters, digits, `-`, `_`, `.`, beginning and ending with a letter or digit"
_LABEL_HINT = "labels are as in Kubernetes; longer texts can be annotations"
_PORTS_NEED = "protocol `TCP`, `UDP` or `SCTP`"
_TRANSPORTS = "`TCP`, `UDP` or `SCTP`"
_ACTIONS = "`Allow`, `Deny`, `Log` or `Pass`"
_PORTS = "1 to 65535"
_ICMP = "protocol `ICMP` or `ICMPv6`"
_NETWORK = "an IPv4 or IPv6 network like `10.0.0.0/8`"
_LOOSE_NETWORK = "an address, or a network like `10.0.0.0/8`"
_NET_HINT = "write the mask as a number of bits, as in `10.0.0.0/8` or `fd00::/8`"
_DIRECTIONS = "`Ingress` or `Egress`"

_FILES = {
    "file-missing": Message(
        None, "no such file or folder", "a file, a folder, or `-` for standard input", "check the path"
    ),
    "file-unreadable": Message(
        None,
        "cannot be read",
        "a regular file that may be read",
        "check its permissions, and the links on the way",
    ),
    "file-open": Message(
        None,
        "is being written",
        "that whoever writes it closes it",
        "`fuser -v` and its name tell who has it open",
    ),
    "file-large": Message(
        None,
        "is too large to be read",
        "at most {most} bytes",
        "part it into several files, or name only files of policies",
    ),
    "files-large": Message(
        None,
        "holds more than is read at once",
        "at most {most} bytes in all files together",
        "name only files and folders of policies",
    ),
    "folder-deep": Message(
        None,
        "holds folders that lie too deep",
        "at most {most} folders one in another",
        "name the folder that holds the policies",
    ),
    "folder-full": Message(
        None,
        "holds too many files and folders",
        "at most {most} names, those of its folders included",
        "name the folder that holds the policies",
    ),
    "fault": Message(
        None,
        "labelgate itself fails on this file",
        "that it reads a file or says what is wrong with it",
        "please report it, together with the file",
    ),
    "not-utf8": Message(None, "not UTF-8 text", "UTF-8", "convert it: `iconv -f LATIN1 -t UTF-8`"),
    "syntax": Message(
        None, "not valid YAML", "a YAML or JSON document", "check indentation, quotes and brackets up to here"
    ),
    "syntax-json": Message(None, "not valid JSON", "a JSON document", "check commas, quotes and brackets"),
    "nesting": Message(
        None, "nested too deeply", "at most {limit} levels", "no resource needs more than about ten"
    ),
    "alias-count": Message(
        None,
        "too many values through aliases",
        "at most {limit} in one document",
        "write the values out, or split the document",
    ),
    "alias-loop": Message(
        None, "an alias contains itself", "an alias of a finished value", "write the value out"
    ),
    "merge-value": Message(
        None,
        "`<<` needs a mapping",
        "an alias of a mapping, or a list of such aliases",
        "write the fields out",
    ),
    "tag": Message(
        None, "unknown tag", "plain YAML without tags of applications", "leave out what begins with `!`"
    ),
    "key-duplicate": Message(
        None,
        "the same field twice",
        "each field once; the first is at line {line}, column {column}",
        "keep one of them",
    ),
    "key-not-text": Message(None, "a field name that is not text", "text", 'put it in quotes: `"{source}"`'),
}
_DOCUMENTS = {
    "not-a-resource": Message(
        None,
        "not a resource",
        "a mapping with `apiVersion`, `kind` and `metadata`",
        "separate documents with `---`",
    ),
    "api-version": Message(
        "R-1", "unknown or unsupported `apiVersion`", "{supported}", "leave the document out of these files"
    ),
    "kind": Message(
        "R-1",
        "unknown or unsupported `kind` in `{version}`",
        "{supported}",
        "leave the document out of these files",
    ),
    "list-part": Message(
        None,
        "the list is not whole",
        "all items in one list",
        "list it again without a limit: policies may be missing",
    ),
    "list-nested": Message(
        None, "a list in a list", "resources as `items`", "move its items into the list around it"
    ),
    "resource-duplicate": Message(
        None, "the same resource twice", "each resource once; the first is at {first}", "remove or rename one"
    ),
    "namespace-refused": Message(
        "R-7", "`{kind}` belongs to the whole cluster", "no `namespace`", "leave `namespace` out"
    ),
    "field-unknown": Message(None, "unknown field", "{known}", "remove it; what is not read is refused"),
    "field-missing": Message(None, "`{field}` is missing", "{what}", "add `{field}`"),
    "wrong-type": Message(None, "the wrong kind of value", "{what}", "{advice}"),
    "too-few": Message(
        None, "too few entries", "at least {limit}", "add one, or remove what the list belongs to"
    ),
    "text-length": Message(None, "text too long", "at most {limit} characters", "shorten it"),
    "value-unknown": Message(None, "unknown value", "`AssumeNeededOnEveryNode`", "leave the list out"),
}
_NAMES = {
    "name-length": Message("V-1", "name too long by {excess}", "at most {limit} characters", "shorten it"),
    "name": Message("V-2", "illegal name", _SUBDOMAIN, "names are those of DNS"),
    "name-network-policy": Message(
        "V-3",
        "illegal name of a `{kind}`",
        "`label` or `label.label`, or `knp.default.` or `ossg.default.` and a name",
        "use `-` instead of `.`",
    ),
    "name-global-network-policy": Message(
        "V-4", "illegal name of a `{kind}`", "at most one `.`", "use `-` instead of `.`"
    ),
    "name-tier": Message("V-5", "illegal name of a `Tier`", "no `.`", "use `-` instead of `.`"),
    "name-tier-length": Message(
        "V-5", "name of a `Tier` too long by {excess}", "at most 63 characters", "shorten it"
    ),
    "label-key": Message("V-6", "illegal label key", _LABEL_KEY, _LABEL_HINT),
    "label-value": Message("V-6", "illegal label value", _LABEL_VALUE, _LABEL_HINT),
    "annotation-key": Message("V-7", "illegal annotation key", _LABEL_KEY, "only the value is free text"),
    "annotation-size": Message(
        "V-7", "annotations too large", "at most 262144 bytes together", "keep long texts elsewhere"
    ),
    "label-reserved": Message(
        "V-8",
        "reserved label",
        "no label `projectcalico.org/namespace`",
        "a set of one namespace is a `NetworkSet` with that `namespace`",
    ),
    "labels-to-apply-key": Message("V-9", "illegal label key", _LABEL_KEY, _LABEL_HINT),
    "labels-to-apply-value": Message("V-9", "illegal label value", _LABEL_VALUE, _LABEL_HINT),
    "name-reference": Message("V-73", "illegal name", _SUBDOMAIN, "it names another resource"),
}
_RULES = {
    "action-missing": Message("V-10", "the rule has no `action`", _ACTIONS, "add `action: Allow`"),
    "action": Message("V-10", "unknown action", _ACTIONS, "it is case-sensitive"),
    "ip-version": Message("V-11", "unknown IP version", "`4` or `6`", "leave it out for both"),
    "protocol-number": Message(
        "V-12", "protocol number out of range", "1 to 255", "for any protocol leave `protocol` out"
    ),
    "protocol-name": Message(
        "V-13",
        "unknown protocol",
        "`TCP`, `UDP`, `ICMP`, `ICMPv6`, `SCTP` or `UDPLite`, or a number",
        "use the number of other protocols",
    ),
    "ports-no-protocol": Message(
        "V-14", "port numbers without a protocol", _PORTS_NEED, "add `protocol: TCP`, or make a rule for each"
    ),
    "ports-protocol": Message("V-15", "ports with a protocol that has none", _PORTS_NEED, "remove the ports"),
    "port-range": Message("V-17", "port out of range", _PORTS, "for all ports leave the list out"),
    "port-reversed": Message("V-18", "range reversed", "the smaller port first", "write `{first}:{last}`"),
    "port-text": Message(
        "V-19",
        "not a port",
        "a number, a range like `80:90`, or a port name",
        "list several ports as `[80, 443]`",
    ),
    "port-name": Message("V-20", "illegal port name", _PORT_NAME, "port names are those of containers"),
    "icmp-protocol": Message("V-21", "`icmp` without an ICMP protocol", _ICMP, "add `protocol: ICMP`"),
    "icmp-code": Message("V-22", "`code` without `type`", "`type` as well", "codes belong to one type"),
    "icmp-type-range": Message(
        "V-23", "not an ICMP type", "a number, 0 to 254", "echo request is `8`, in IPv6 `128`"
    ),
    "icmp-code-range": Message(
        "V-23", "not an ICMP code", "a number, 0 to 255", "for any code leave `code` out"
    ),
    "icmp-version": Message(
        "V-24",
        "the ICMP protocol does not fit `ipVersion`",
        "`ICMP` with `ipVersion: 4`, `ICMPv6` with `ipVersion: 6`",
        "leave `ipVersion` out: the protocol implies it",
    ),
    "not-icmp-protocol": Message("V-25", "`notICMP` without an ICMP protocol", _ICMP, "add `protocol: ICMP`"),
    "net": Message("V-26", "not a network", _NETWORK, _NET_HINT),
    "net-host-bits": Message(
        "V-26", "address bits below the mask", "a network address", "write `{net}` or `{host}`"
    ),
    "net-no-mask": Message("V-27", "an address without a mask", "a network", "write `{host}`"),
    "net-families": Message(
        "V-28",
        "IPv4 and IPv6 networks in one rule",
        "one family in all `nets` and `notNets` of source and destination",
        "make two rules; the first network here is `{first}`",
    ),
    "net-version": Message(
        "V-29",
        "the network does not fit `ipVersion: {version}`",
        "an IPv{version} network",
        "make a rule of its own for the other family",
    ),
    "not-nets-all": Message(
        "V-30", "`notNets` excludes every address", "a smaller network", "this rule could never match"
    ),
    "http-action": Message("V-31", "`http` in a rule that does not allow", "action `Allow`", "remove `http`"),
    "http-protocol": Message(
        "V-32", "`http` with another protocol", "protocol `TCP`, or none", "remove `http`"
    ),
    "http-egress": Message("V-33", "`http` in an egress rule", "no `http` here", "remove `http`"),
    "http-method": Message("V-34", "the same method twice", "each method once", "keep one of them"),
    "http-path-form": Message(
        "V-34", "not a path match", "either `exact` or `prefix`", "make two entries of it"
    ),
    "http-path": Message(
        "V-34",
        "illegal path",
        "a path that begins with `/`, without `?`, `#` or space",
        "queries and fragments cannot be matched",
    ),
    "http": Message(
        "M-40",
        "`http` is not supported",
        "no `http`",
        "packets do not show it, and a rule without it would allow more",
    ),
    "selector": Message(
        "V-35",
        "the selector cannot be read: {reason}",
        "a selector like `role == 'edge' && has(site)`",
        "put values in quotes, combine with `&&` and `||`, negate with `!`",
    ),
    "selector-global": Message(
        "V-35",
        "`global()` in this selector",
        "no `global()`",
        "it belongs to the `namespaceSelector` of a rule",
    ),
    "selector-global-combined": Message(
        "V-36", "`global()` together with something else", "`global()` alone", "make two rules"
    ),
    "services-combined": Message(
        "V-50",
        "`services` together with other criteria on addresses",
        "`services` without them",
        "make two rules; the backends of a service are addresses already",
    ),
    "services-name": Message("V-51", "`services` without a name", "`name`", "add the name of the service"),
    "services-side": Message(
        "V-52",
        "`services` on the side of the policy's own endpoints",
        "`services` under `{side}`",
        "a service is the peer: the source of ingress, the destination of egress",
    ),
    "services-ports": Message(
        "V-53",
        "`services` together with destination ports",
        "`services` without them",
        "the ports are those of the service's backends",
    ),
    "services-namespace": Message(
        "V-54",
        "`services` without a namespace",
        "`namespace`",
        "only a `NetworkPolicy` has one of its own",
    ),
}
_POLICIES = {
    "untracked-and-prednat": Message(
        "V-40",
        "`doNotTrack` and `preDNAT` exclude each other",
        "at most one of them true",
        "make two policies",
    ),
    "prednat-egress": Message(
        "V-41", "a `preDNAT` policy has egress rules", "ingress rules only", "move them to another policy"
    ),
    "prednat-type": Message(
        "V-42", "a `preDNAT` policy has type `Egress`", "`types: [Ingress]`", "move egress to another policy"
    ),
    "forward-needed": Message(
        "V-43",
        "`{field}` without `applyOnForward`",
        "`applyOnForward: true`",
        "such a policy also judges forwarded packets; say so with `applyOnForward: true`",
    ),
    "type-twice": Message("V-44", "the same type twice", "each type once", "keep one of them"),
    "type": Message("V-44", "unknown type", _DIRECTIONS, "leave `types` out to infer them from the rules"),
    "staged-action": Message(
        "E-15",
        "unknown staged action",
        "`Set`, `Delete`, `Learn` or `Ignore`",
        "leave it out for `Set`",
    ),
    "staged-delete": Message(
        "V-46",
        "`stagedAction: Delete` with a policy",
        "an otherwise empty `spec`",
        "the policy of this name is meant to go; say nothing else of it",
    ),
    "types-empty": Message(
        "V-44",
        "an empty list of types",
        "`Ingress`, `Egress` or both",
        "name the directions that the policy is to isolate",
    ),
    "too-many": Message("V-48", "too many entries", "at most {limit}", "split it"),
    "selector-length": Message("V-48", "selector too long", "at most {limit} characters", "use `in {{...}}`"),
    "hint-twice": Message("V-74", "the same performance hint twice", "each hint once", "keep one of them"),
}
_ENDPOINTS = {
    "endpoint-node": Message(
        "V-60", "the host endpoint has no `node`", "the name of the node it belongs to", "add `node`"
    ),
    "endpoint-interface": Message(
        "V-61",
        "neither `interfaceName` nor `expectedIPs`",
        "one of them",
        '`interfaceName: "*"` stands for all interfaces',
    ),
    "interface-name": Message(
        "V-62",
        "illegal interface name",
        "1 to 15 of letters, digits, `_`, `.`, `-`",
        "the kernel knows no longer names; host endpoints may also say `*`",
    ),
    "address": Message("V-63", "not an address", "an IPv4 or IPv6 address", "leave out mask and zone"),
    "endpoint-port-name": Message("V-64", "illegal port name", _PORT_NAME, "rules name the port by it"),
    "endpoint-port-missing": Message("V-64", "`{field}` is missing", "`{field}`", "add `{field}`"),
    "endpoint-port-number": Message("V-64", "port out of range", _PORTS, "only single ports have names"),
    "endpoint-port-protocol": Message(
        "V-64", "a protocol without ports", _TRANSPORTS, "only ports of these protocols have names"
    ),
    "workload-network": Message(
        "V-65",
        "not a single address",
        "an address, or a network of one address like `10.65.0.2/32`",
        "list each address",
    ),
    "nat-internal": Message(
        "V-66", "not an address of the workload", "an address out of `ipNetworks`", "add it to `ipNetworks`"
    ),
    "nat-family": Message(
        "V-66", "addresses of two families", "two IPv4 or two IPv6 addresses", "make an entry for each family"
    ),
    "workload-port-name": Message("V-67", "a port without a name", "`name`, or `hostPort`", "add `name`"),
    "workload-host-port": Message(
        "V-67", "not a host port", "a number, 0 to 65535", "leave it out, or write `0`, where there is none"
    ),
    "workload-interface": Message(
        "V-68",
        "the workload has no `interfaceName`",
        "the name of its interface on the node",
        "Calico, too, takes such a workload as absent",
    ),
    "spoofed-prefix": Message("V-68", "not a network", _LOOSE_NETWORK, _NET_HINT),
    "set-net": Message("V-69", "not a network", _LOOSE_NETWORK, _NET_HINT),
    "tier-order": Message(
        "V-70", "the order of tier `{tier}` is fixed", "`order: {order}`", "make a tier of another name"
    ),
    "tier-action-fixed": Message(
        "V-70",
        "the action of tier `{tier}` is fixed",
        "`defaultAction: {action}`",
        "make a tier of another name",
    ),
    "tier-action": Message("V-71", "unknown action of a tier", "`Deny` or `Pass`", "leave it out for `Deny`"),
}
_KUBERNETES = {
    "operator": Message(
        "K-2", "unknown operator", "`In`, `NotIn`, `Exists` or `DoesNotExist`", "it is case-sensitive"
    ),
    "operator-values": Message(
        "K-2", "`{operator}` without values", "at least one value", "`Exists` and `DoesNotExist` need none"
    ),
    "operator-no-values": Message(
        "K-2", "`{operator}` with values", "no `values`", "`In` and `NotIn` take values"
    ),
    "peer-empty": Message(
        "K-5",
        "an empty peer",
        "`podSelector`, `namespaceSelector` or `ipBlock`",
        "for everyone leave `{field}` out",
    ),
    "peer-both": Message(
        "K-5", "`ipBlock` together with a selector", "`ipBlock` alone", "make two peers of it"
    ),
    "kubernetes-protocol": Message("K-8", "unknown protocol", _TRANSPORTS, "it is case-sensitive"),
    "kubernetes-port": Message("K-9", "not a port", f"{_PORTS}, or a port name", "use `endPort` for ranges"),
    "end-port": Message("K-9", "`endPort` without a numeric `port`", "`port` as a number", "add `port`"),
    "end-port-reversed": Message(
        "K-9", "`endPort` is smaller than `port`", "`{port}` or more", "exchange the two"
    ),
    "block": Message("K-12", "not a network", _NETWORK, _NET_HINT),
    "block-except": Message(
        "K-12",
        "not inside `{cidr}`",
        "a smaller network out of `cidr`",
        "remove it, or make it smaller",
    ),
    "policy-type": Message(
        "K-13", "unknown type", _DIRECTIONS, "leave `policyTypes` out to infer them from the rules"
    ),
    "policy-type-twice": Message("K-13", "the same type twice", "each type once", "keep one of them"),
    "cluster-tier": Message("K-20", "unknown tier", "`Admin` or `Baseline`", "it is case-sensitive"),
    "cluster-priority": Message("K-20", "priority out of range", "0 to 1000", "the lowest runs first"),
    "cluster-subject": Message(
        "K-20", "not one subject", "either `namespaces` or `pods`", "`namespaces: {{}}` is every pod"
    ),
    "cluster-action": Message("K-22", "unknown action", "`Accept`, `Deny` or `Pass`", "it is case-sensitive"),
    "cluster-no-peers": Message(
        "K-23", "a rule without peers", "at least one peer", "`namespaces: {{}}` is every namespace"
    ),
    "cluster-no-networks": Message(
        "K-23", "a peer of no networks", "at least one network", "add one, or remove the peer"
    ),
    "cluster-network": Message("K-23", "not a network", _NETWORK, _NET_HINT),
    "cluster-peer": Message(
        "K-24", "not one kind of peer", "exactly one field", "make a peer for each of them"
    ),
    "cluster-protocol": Message(
        "K-25",
        "not one protocol",
        "one of `tcp`, `udp`, `sctp` or `destinationNamedPort`",
        "make an entry for each; for any protocol leave `protocols` out",
    ),
    "cluster-port-form": Message(
        "K-25",
        "not one port or range",
        "either `number` or `range`",
        "for all ports leave `destinationPort` out",
    ),
    "cluster-port": Message("K-25", "port out of range", _PORTS, "for all ports leave it out"),
    "cluster-port-reversed": Message(
        "K-25", "range reversed", "the smaller port as `start`", "exchange the two"
    ),
    "cluster-port-name": Message(
        "K-25", "illegal port name", _PORT_NAME, "port names are those of containers"
    ),
    "stashed-metadata": Message(
        "R-3",
        "not the metadata of a resource",
        "an object as JSON, with `name`, `labels` or `annotations`",
        "leave it out of what you write; Calico makes it where it stores a resource",
    ),
    "service-target-port": Message(
        None,
        "not a port",
        "a number, or the name of a port of the backends",
        "leave it out where it is the same as `port`",
    ),
    "slice-protocol": Message("M-31", "unknown protocol", _TRANSPORTS, "leave it out for `TCP`"),
    "slice-port": Message("M-31", "port out of range", _PORTS, "it is the port of the backend"),
    "pod-address": Message("R-30", "not an address", "an IPv4 or IPv6 address", "it is written by the node"),
}
_FELIX = {
    "felix-value": Message(None, "unknown value", "{known}", "leave it out for the default"),
    "felix-failsafe-protocol": Message(
        "E-41", "unknown protocol of a failsafe port", "`tcp`, `udp` or `sctp`", "leave it out for `tcp`"
    ),
    "felix-failsafe-port": Message(
        "E-41", "failsafe port out of range", _PORTS, "make an entry for each port"
    ),
    "felix-failsafe-net": Message("E-41", "not a network", _LOOSE_NETWORK, _NET_HINT),
    "felix-vxlan-port": Message("E-20", "port out of range", _PORTS, "leave it out for `4789`"),
    "felix-prefix": Message(
        None,
        "not a list of prefixes",
        "prefixes with commas between, like `cali,tap`",
        "leave it out for `cali`",
    ),
    "felix-twins": Message(
        None, "`{field}` and `{twin}` disagree", "the same value", "one of the two is enough here"
    ),
    "felix-unsupported": Message(
        None, "`{field}` would change verdicts and is not supported", "{expected}", "{why}"
    ),
}

_TESTS = {
    "test-peer": Message(
        None,
        "not an endpoint of an expectation",
        "an address, a network, `namespace/name` of a workload, `Kind/name`, or "
        "`{{selector: ..., namespace: ...}}`",
        "host endpoints are `HostEndpoint/name`",
    ),
    "test-port": Message(
        None, "a port by name", "a number, or a range like `80:90`", "ask for the number behind it"
    ),
    "test-source-port": Message(None, "source port out of range", _PORTS, "leave it out for any client"),
    "test-expect": Message(
        None,
        "unknown answer",
        "`allow` or `deny`; with `hook` also `allow-notrack`, `allow-skip-hep` or `continue`",
        "say whether the packet gets through",
    ),
    "test-word": Message(
        None, "the answer of one hook", "`allow` or `deny` for a whole way", "name the `hook` that answers so"
    ),
    "test-hook": Message(
        None,
        "unknown hook",
        "`raw-prerouting`, `raw-output`, `mangle-prerouting`, `filter-input`, `filter-forward`, "
        "`filter-output` or `mangle-postrouting`",
        "leave it out for the whole way",
    ),
    "test-direction": Message(
        None, "unknown direction", "`ingress` or `egress`", "say which of the policy's rules are meant"
    ),
    "test-state": Message(
        None,
        "unknown state",
        "`new`, `established`, `related`, `invalid` or `untracked`",
        "leave it out for `new`",
    ),
    "test-icmp": Message(
        None,
        "`icmp` and `protocol` do not fit",
        "`icmp` with a type beside protocol `ICMP` or `ICMPv6`, else none",
        "a ping is `icmp: {{type: 8}}`, of ICMPv6 `icmp: {{type: 128}}`",
    ),
    "test-service": Message(None, "no service is asked for", "`port`, or `protocol`", "add `port`"),
    "test-ports": Message(None, "ports of a protocol without ports", _PORTS_NEED, "remove `port`"),
    "test-decided": Message(
        None, "not what decided", "`policy`, with `rule` if you like, or `tier`", "leave `decidedBy` out"
    ),
    "test-dnat": Message(
        None,
        "`dnat` lies between hooks",
        "`dnat` for a whole way, without `hook`",
        "for one hook name the translated address in `to`",
    ),
    "test-empty": Message(None, "no expectations", "at least one", "remove the document"),
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
    **_TESTS,
}
