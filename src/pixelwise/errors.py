"""Mistakes that a user can mend. Each message says what is wrong, where, and what to do.

The command line prints these as one paragraph and exits with 1; anything else is a bug and shows its traceback.
"""


class PixelwiseError(ValueError):
    """The root of all user errors."""


class ConfigError(PixelwiseError):
    """A value in the configuration, or an argument, that cannot be used."""


class DataError(PixelwiseError):
    """An image, mask, scene or polygon file that is missing, corrupt or inconsistent."""


class WeightsError(PixelwiseError):
    """Weights that are unknown, incomplete or of another shape than the model."""


class MissingExtraError(PixelwiseError):
    """A job that needs an optional dependency which is not installed."""


class OldNameWarning(FutureWarning):
    """A name that has been replaced and still works; the message names the new one."""
