"""Errors for the mistakes that a user can make with a family; each message says what would be right."""

import gymnasium


class UnknownTaskError(LookupError):
    """A task was named that its family does not have."""


class SettingError(ValueError):
    """A setting of a family, a split or a vector environment is out of its range."""


class ActionError(ValueError):
    """The actions given have the wrong type, number or range."""


class TransitionError(ValueError):
    """Recorded transitions do not fit together or lie outside the family's spaces."""


class NotResetError(ValueError, gymnasium.error.ResetNeeded):
    """A row was used before its first reset, or after its episode ended without one."""


class PlayError(ValueError):
    """An environment of somebody else's failed, or broke its own rules, while it was played."""
