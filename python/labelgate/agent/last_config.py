"""The configuration that was in force last, for a start at which what there is now cannot be read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from labelgate.agent.generation import config_in_force_last
from labelgate.agent.process import start_mode
from labelgate.agent.state import StateError, peek
from labelgate.config import KEYS, Config, ConfigError, variable_of
from labelgate.regular import read_regular

_PATH_LINE = re.compile(r"^(state|socket):\s*[\"']?(/[^\s\"'#]*)", re.MULTILINE)


def last_config(config_file: str | None, node: str | None, flags: Mapping[str, Any]) -> Config | None:
    """As the state has it, but for the command line; None where it has none, or a start is to be strict.

    Without it a host that restarts with a slip in its configuration would be without any policy.
    """
    with suppress(StateError, ConfigError):
        record = peek(state_folder(config_file, flags))
        if record is not None and record.confirmed.config:
            config = config_in_force_last(record, node, flags)
            return config if start_mode(config) == "last-good" else None
    return None


def state_folder(config_file: str | None, flags: Mapping[str, Any]) -> str:
    """Where the state is, as far as that can be told when the configuration is not valid."""
    default: str = KEYS["state"][1]
    return (
        flags.get("state")
        or os.environ.get(variable_of("state"))
        or path_in_file(config_file, "state")
        or default
    )


def path_in_file(config_file: str | None, key: Literal["state", "socket"]) -> str | None:
    """By its line alone: the file may be no YAML at all."""
    try:
        text = read_regular(config_file or "").decode(errors="replace")
    except OSError:
        return None
    return dict(_PATH_LINE.findall(text)).get(key)
