"""Rules of others that ours cannot help: told when they come, and known as long as they are there."""

from __future__ import annotations

from collections.abc import Callable

from labelgate.agent.rate_limit import RateLimited
from labelgate.config import Config
from labelgate.netfilter.apply import Netfilter, Tables, Variant
from labelgate.netfilter.facts import Marks
from labelgate.netfilter.readback import EMPTY_TABLE, mark_writers, rules_of_others


class RulesOfOthers:
    """Of both variants of iptables, as they were at the last look."""

    def __init__(self, say: Callable[[str], None]) -> None:
        # A budget of its own: one flush of ours would use up what there is to say of marks.
        self.warn = RateLimited(say, "warnings of rules of others")
        self.other_variant: Variant | None = None
        """The iptables variant that is not ours, where it has rules, too."""
        self.mark_writers: tuple[str, ...] = ()
        """Rules that can write our mark bits before ours read them."""
        self.are_on_output = True
        """Some are in raw or mangle OUTPUT, or that is not known."""

    def look(self, netfilter: Netfilter, now: Tables, config: Config) -> None:
        """Tells of what is new; `now` is what `netfilter` has just read."""
        variant, tables = netfilter.other_variant() or (None, {})
        if variant and variant != self.other_variant:
            self.warn(
                f"warning: iptables-{variant} has rules, too: packets pass those of both, in an order "
                "that is not ours to choose"
            )
        marks, mode = Marks.from_mask(config.mark_mask), config.settings.chain_insert_mode
        writers = tuple(
            f"iptables-{whose} {family} {text}"
            for whose, found, insert_mode in ((netfilter.tools.variant, now, mode), (variant, tables, None))
            for family in found
            for text in mark_writers(found[family], marks, insert_mode)
        )
        for writer in writers:
            if writer not in self.mark_writers:
                self.warn(
                    f"warning: {writer}: packets may be judged twice, or pass as judged; let it spare our "
                    "bits (a mask), or set `marks.mask` to others"
                )
        self.other_variant, self.mark_writers = variant, writers
        self.are_on_output = any(
            rules_of_others(family.get(table, EMPTY_TABLE), "OUTPUT")
            for found in (now, tables)
            for family in found.values()
            for table in ("raw", "mangle")
        )
