"""The one exception for faults that are the user's or the network's: a message, a hint, exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """What is wrong (naming the package, key or file) and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"error: {self.message}" + (f"\nhint: {self.hint}" if self.hint else "")

    def __reduce__(self):  # crosses process borders whole
        return UserError, (self.message, self.hint)
