"""Events of packets for people: which ones (`expression`), as a line (`line`), as a capture (`pcap`)."""

from labelgate.events.expression import ExpressionError, Predicate, parse
from labelgate.events.line import line
from labelgate.events.pcap import capture

__all__ = ["ExpressionError", "Predicate", "capture", "line", "parse"]
