"""What a user can get wrong with histories: one exception class per kind of mistake, one clear sentence each."""


class DataError(ValueError):
    """A mistake about histories that the user can put right."""


class HistoryFileError(DataError):
    """A history file cannot be read as ``cccad-history/1``; the sentence says which file and what is wrong."""


class CollectionError(DataError):
    """A collection cannot start, cannot go on, or lost some of its units."""


class SourceError(DataError):
    """A source cannot play the family that it was given."""


class SamplingError(DataError):
    """A batch was asked for that these histories cannot give."""


class UnknownFamilyError(LookupError):
    """No installed distribution offers the task family that a history file names."""
