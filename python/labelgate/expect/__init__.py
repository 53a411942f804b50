"""Policy tests: expectations asked of the table that enforces, and which rules none of them asks about."""
