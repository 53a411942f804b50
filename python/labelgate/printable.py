"""Text of others, such as what stands in a file or names one, as a terminal or a log can be given it."""


def printable(text: str) -> str:
    r"""In one line, with escapes for whatever a terminal would obey, or not show.

    >>> print(printable("a\x1b[2Jb\né\u202e"))
    a\x1b[2Jb\né\u202e
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def printable_lines(text: str) -> str:
    """The same of a text that has lines."""
    return "\n".join(map(printable, text.split("\n")))
