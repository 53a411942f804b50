"""Questions to the kernel over netlink, by hand: of some there are as many as connections, and a library that
makes objects of all that is in an answer takes most of a millisecond for each.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice

# linux/netlink.h
ROUTE, NETFILTER = 0, 12
REQUEST, ACK, EXCL, DUMP, CREATE = 0x1, 0x4, 0x200, 0x300, 0x400
ERROR, DONE = 2, 3
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = 0x3FFF  # NLA_TYPE_MASK
_RECEIVE = 1 << 16
_SECONDS = 5.0
_AT_ONCE = 32
"""Questions that are sent before their answers are taken: so many answers any receive buffer holds."""

Question = tuple[int, int, bytes]
"""Kind, flags, and what follows the header."""
Message = tuple[int, int, bytes]
"""Kind, number of the question, and what follows the header."""


def attribute(number: int, value: bytes) -> bytes:
    """One attribute.

    >>> attribute(1, b"eth0\\0").hex()
    '090001006574683000000000'
    """
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, number) + value + bytes(-length % 4)


def nested(number: int, *values: bytes) -> bytes:
    """One attribute made of others."""
    return attribute(_NESTED | number, b"".join(values))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of each, up to one whose length does not fit."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, number = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield number & _NUMBER, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def messages(datagram: bytes) -> Iterator[Message]:
    """Those of one datagram, up to one whose length does not fit."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, _, number, _ = _HEADER.unpack_from(datagram, at)
        if length < _HEADER.size:
            return
        yield kind, number, datagram[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def datagrams(protocol: int, question: Question) -> Generator[bytes]:
    """The datagrams of one answer, for as long as they are asked for; OSError where none comes."""
    with _opened(protocol) as asked:
        asked.send(_message(question))
        while True:
            yield asked.recv(_RECEIVE)


def ask(protocol: int, question: Question) -> Iterator[bytes]:
    """What follows the header in each message of one answer, up to its end.

    Raises:
        OSError: it failed.
    """
    with closing(datagrams(protocol, question)) as answer:
        for datagram in answer:
            for kind, _, body in messages(datagram):
                if kind in (ERROR, DONE):
                    if error := _error(body):
                        raise error
                    return
                yield body


def ask_all(protocol: int, questions: Iterable[Question]) -> Iterator[bytes | OSError]:
    """For each question that one message answers what follows the header in that, or how it failed.

    An acknowledgement is empty.

    Raises:
        OSError: the kernel cannot be asked.
    """
    rest = iter(questions)
    with _opened(protocol) as asked:
        while window := list(islice(rest, _AT_ONCE)):
            yield from _answers(asked, window)


def _answers(asked: socket.socket, questions: Sequence[Question]) -> Iterator[bytes | OSError]:
    """In order: the kernel answers one question before it reads the next one."""
    asked.send(b"".join(_message(question, number) for number, question in enumerate(questions)))
    left = len(questions)
    while left:
        for kind, number, body in messages(asked.recv(_RECEIVE)):
            if number != len(questions) - left:
                raise OSError("netlink: an answer to another question")
            left -= 1
            yield ((_error(body) or b"") if kind == ERROR else body)


def _opened(protocol: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    opened.settimeout(_SECONDS)
    return opened


def _message(question: Question, number: int = 0) -> bytes:
    kind, flags, body = question
    head = _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, number, 0)
    return head + body + bytes(-len(body) % 4)


def _error(body: bytes) -> OSError | None:
    (number,) = struct.unpack_from("=i", body)
    return OSError(-number, os.strerror(-number)) if number else None
