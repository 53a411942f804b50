"""The daemon: load, compile, swap, rules, watch; in this order at every change, back again if one fails."""

from labelgate.agent.daemon import Agent
from labelgate.agent.generation import AgentError, Options
from labelgate.agent.last_config import last_config, state_folder
from labelgate.agent.loose import LooseNote
from labelgate.agent.process import stop_mode

__all__ = ["Agent", "AgentError", "LooseNote", "Options", "last_config", "state_folder", "stop_mode"]
