"""The class of fsspec for a protocol, and what to install where that class is missing."""

from typing import Any

from fsspec import available_protocols, get_filesystem_class

from mocha_pipe.teacher_cache.errors import TransferError

_EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gs"), "gcs": ("gcsfs", "gs"),
           "ssh": ("paramiko", "ssh"), "sftp": ("paramiko", "ssh")}  # fmt: skip


def find_driver(protocol: str) -> Any:
    """The class for a protocol.

    Raises:
        TransferError: the protocol is unknown, or the package that its class needs is not installed.
    """
    try:
        if protocol in ("ssh", "sftp"):
            from mocha_pipe.teacher_cache.sharing.places.ssh import KnownHostsFileSystem

            return KnownHostsFileSystem
        return get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        if protocol in _EXTRAS:
            package, extra = _EXTRAS[protocol]
            reason = f"{protocol}:// needs the package {package}; install it with: pip install 'mocha-pipe[{extra}]'"
        elif protocol in available_protocols():
            reason = f"{protocol}:// needs more than is installed here ({error}); install what it names"
        else:
            known = "s3://, gs://, hf://, ssh://, file://, ..."
            reason = f"a place is a folder or a URL ({known}); {protocol}:// is not known"
        raise TransferError(reason) from error
