"""What keeps vLLM from being installed or served."""

from __future__ import annotations

from agent.errors import AgentError


class VllmError(AgentError):
    """Environment, command or server; says what to do."""

    permanent = True
