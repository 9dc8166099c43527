"""The base of every error about a user's data: it survives pickling and gains context on its way up."""

from __future__ import annotations


class DataError(ValueError):
    """Something is wrong with the data, not with the program.

    Data errors are raised in worker processes and reported in the main one, so subclasses whose constructor takes
    more than one argument pass all of them to ``super().__init__``: pickle rebuilds an exception from ``args``.

    Attributes:
        context: what the callers knew ("image 17 of ...", "batch 3 of epoch 0"), innermost first.
    """

    context: tuple[str, ...] = ()

    def within(self, where: str) -> DataError:
        """Adds what a caller knows about the place and returns the same error, ready to be raised again."""
        self.context = (*self.context, where)
        return self

    def message(self) -> str:
        """The error without its context; subclasses with several arguments format them here."""
        return super().__str__()

    def __str__(self) -> str:
        if not self.context:
            return self.message()
        return f"{self.message()} [{'; '.join(self.context)}]"
