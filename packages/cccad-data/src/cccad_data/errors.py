"""What a user can get wrong with histories: one exception class per kind of mistake, one clear sentence each."""

import difflib
from collections.abc import Iterable


def hint(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence about a name that is none of these *names*: the nearest one, or all."""
    lower = {key.lower(): key for key in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"did you mean {lower[near[0]]!r}?" if near else f"known: {', '.join(sorted(lower.values())) or 'none'}"


class DataError(ValueError):
    """A mistake about histories that the user can put right."""


class HistoryFileError(DataError):
    """A history file cannot be read as `cccad-history/1`; the sentence says which file and what is wrong."""


class JobError(DataError):
    """Jobs cannot be run where they should be, such as on a cluster that is not there."""


class HaltingError(DataError):
    """A failure that every other job would meet too, so that none need be begun."""


class CollectionError(DataError):
    """A collection cannot start, cannot go on, or lost some of its units."""


class StorageError(CollectionError, HaltingError):
    """Something cannot be written, most often because the disk is full; nothing half-written is left behind."""


class FolderInUseError(DataError):
    """Another process is writing into a folder; the sentence says which one, where, and since when."""


class SourceError(DataError):
    """A source cannot play the family that it was given."""


class UnfitValueError(DataError):
    """A value lies outside its space, or cannot be stored as it was measured; the sentence says where and which."""


class SamplingError(DataError):
    """A batch was asked for that these histories cannot give."""


class FamilyError(DataError):
    """An installed task family refuses what it is asked, or fails."""


class UnknownFamilyError(LookupError):
    """No installed distribution offers the task family that a history file names."""
