"""Errors of the application.

AgentError
├── ConfigError     (permanent)  config.toml or the environment says something that cannot work
├── SpoolError      (transient)  received bytes could not be kept or found again
├── AnalysisError   (transient)  the inference process died or ran out of time
│   └── AnalysisInterrupted      the agent stops; the attempt does not count
├── ComposeError    (permanent)  a result object could not be made from valid findings
└── DeliveryError   (either)     a destination did not take an object
    └── IdentityChanged (permanent)  the study is no longer the one that was analysed
"""

from __future__ import annotations


class AgentError(Exception):
    """Something the operator can read: the thing, the cause, the mend."""

    permanent = False


class ConfigError(AgentError):
    """The configuration cannot work; names file, key and what is allowed."""

    permanent = True


class SpoolError(AgentError):
    """Received bytes could not be kept, or are no longer where the record says."""


class AnalysisError(AgentError):
    """The inference process died or did not answer in time; the study is tried again."""


class AnalysisInterrupted(AnalysisError):
    """The agent stops while a study is analysed; the next start takes it up again."""


class ExplanationYielded(AnalysisError):
    """An explanation was given up because a study waited for the model."""


class ComposeError(AgentError):
    """A result object could not be composed."""

    permanent = True


class DeliveryError(AgentError):
    """A destination did not take an object or a priority update."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class IdentityChanged(DeliveryError):
    """Study, patient or accession differ from what was analysed: the push is stopped."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)
