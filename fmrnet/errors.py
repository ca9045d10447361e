"""The mistakes a user can make, one class a kind. The command line prints them as one line and exits with 2."""

__all__ = ["ArtifactError", "ConfigError", "DatasetError", "FmrnetError", "PictureError"]


class FmrnetError(Exception):
    """A mistake of the user's; the message says what was given, what was expected and what to do."""


class PictureError(FmrnetError):
    """A picture that cannot be read or inspected."""


class DatasetError(FmrnetError):
    """A folder of pictures that training, calibration or evaluation cannot use."""


class ArtifactError(FmrnetError):
    """A model file or a checkpoint that cannot be used."""


class ConfigError(FmrnetError):
    """A setting outside its range, or settings that contradict each other."""
