"""Everything the codec can refuse, as one tree.

BijouError
|-- InvalidImageError         the image's bytes are corrupt or truncated
|-- UnsupportedImageError     not an accepted format or pixel type
|-- StreamError               something is wrong with a .bij
|   |-- NotAStreamError       foreign magic or version
|   |-- CorruptStreamError    truncated, impossible or damaged
|   `-- UnknownModelError     names a model that is not served
|-- LimitError                larger than a limit allows
|-- OptionError               options out of range or in conflict
|-- TargetError               the target cannot be met
`-- ModelError                a model's files are missing or damaged
    |-- GoldenCheckError      the model does not reproduce its golden streams
    `-- DeviceError           the asked-for device is not available
"""


class BijouError(Exception):
    """Root of the tree; its text is one sentence that says what to do."""


class InvalidImageError(BijouError):
    """The image's bytes are corrupt or truncated."""


class UnsupportedImageError(BijouError):
    """Not an accepted image format or pixel type."""


class StreamError(BijouError):
    """Something is wrong with a .bij stream."""


class NotAStreamError(StreamError):
    """The bytes do not start like a .bij stream of a known version."""


class CorruptStreamError(StreamError):
    """The stream is truncated, impossible or damaged."""


class UnknownModelError(StreamError):
    """The stream, or the caller, names a model that is not served.

    Attributes:
        model_id: What was asked for.
        served: Ids that are served.
    """

    def __init__(self, model_id: str, served: tuple[str, ...]) -> None:
        super().__init__(f"model {model_id} is not served here; served: {', '.join(served) or 'none'}")
        self.model_id, self.served = model_id, served


class LimitError(BijouError):
    """Larger than a limit allows.

    Attributes:
        limit: Name of the limit with its unit.
        value: What was asked for.
        maximum: What is allowed.
    """

    def __init__(self, limit: str, value: int, maximum: int) -> None:
        super().__init__(f"{limit} is {value}, the limit is {maximum}; send a smaller picture")
        self.limit, self.value, self.maximum = limit, value, maximum


class OptionError(BijouError):
    """Options out of range or in conflict."""


class TargetError(BijouError):
    """The target cannot be met."""


class ModelError(BijouError):
    """A model's files are missing or damaged."""


class GoldenCheckError(ModelError):
    """The model does not reproduce its golden streams to the byte."""


class DeviceError(ModelError):
    """The asked-for device is not available."""
