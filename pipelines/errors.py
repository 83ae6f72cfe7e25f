"""Everything Maskloop raises on purpose.

MaskloopError
├── ConfigurationError      params.yaml, the environment or a missing system tool
│   └── ContractError       labels of the project, params.yaml and the model disagree
├── ServiceError            a server does not answer, or answers with a failure
│   ├── CredentialsError    a server refuses the credentials
│   └── BusyError           a service has reached its limit of requests
├── StorageError            a bucket or an object cannot be read or written
│   ├── ObjectChangedError  the object is no longer at the generation that was asked for
│   ├── ObjectStalledError  the server stopped sending in the middle of an object
│   └── ObjectUnusableError an object is too large, or encrypted with a key of its owner
│       └── ObjectDamagedError its bytes are not those listed
├── DataError               input that cannot be used (also a ValueError)
│   ├── ImageError          bytes that are not a usable photo
│   ├── CatalogError        the catalogue CSV breaks its contract
│   ├── AnnotationError     a region or annotation that cannot be read
│   │   └── BrushError      a malformed brush RLE stream
│   └── PromptError         a click or box that cannot be used
├── DatasetError            a dataset version could not be built or published
│   └── ChecksError         its checks stopped it (also a DataError: a retry would change nothing)
└── ModelError              a model cannot be loaded, registered or promoted
    └── TrainingError       a training that must not continue (also a DataError)

Each message says what is wrong, where, and what to do next.
"""


class MaskloopError(Exception):
    """Base of every error that Maskloop raises on purpose."""


class ConfigurationError(MaskloopError):
    """Raise when params.yaml, the environment or the machine is not set up as needed."""


class ContractError(ConfigurationError):
    """Raise when the labels of the project, of params.yaml and of a model disagree."""


class ServiceError(MaskloopError):
    """Raise when a server does not answer or answers with a failure."""


class CredentialsError(ServiceError):
    """Raise when a server refuses the credentials it was given."""


class BusyError(ServiceError):
    """Raise when a service has as many waiting requests as it accepts."""


class StorageError(MaskloopError):
    """Raise when a bucket or an object cannot be read or written."""


class ObjectChangedError(StorageError):
    """Raise when an object is gone or overwritten since its generation was listed."""


class ObjectStalledError(StorageError):
    """Raise when the server stopped sending in the middle of an object."""


class ObjectUnusableError(StorageError):
    """Raise when one object is too large or cannot be decrypted; others may be usable."""


class ObjectDamagedError(ObjectUnusableError):
    """Raise when the bytes that arrived are not those that were listed."""


class DataError(MaskloopError, ValueError):
    """Raise for input that cannot be used."""


class ImageError(DataError):
    """Raise for bytes that are not a usable photo; `reason` is a short, stable code for reports."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CatalogError(DataError):
    """Raise when the catalogue CSV breaks its contract."""


class AnnotationError(DataError):
    """Raise for a region or annotation that cannot be read."""


class BrushError(AnnotationError):
    """Raise for a malformed brush RLE stream."""


class PromptError(DataError):
    """Raise for a click or box that cannot be used."""


class DatasetError(MaskloopError):
    """Raise when a dataset version could not be built or published."""


class ChecksError(DatasetError, DataError):
    """Raise when a dataset version is stopped by its checks."""


class ModelError(MaskloopError):
    """Raise when a model cannot be loaded, registered or promoted."""


class TrainingError(ModelError, DataError):
    """Raise when a training must not continue: impossible options, or a loss that is not finite."""
