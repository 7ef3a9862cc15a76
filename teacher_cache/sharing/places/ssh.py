"""ssh to known servers only; fsspec's own driver trusts any server that answers under the name."""

import paramiko  # type: ignore[import-untyped]
from fsspec.implementations.sftp import SFTPFileSystem


class KnownHostsFileSystem(SFTPFileSystem):  # type: ignore[misc]
    """Files behind ssh; the server must hold the key that ~/.ssh/known_hosts has for it."""

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        self.client.set_missing_host_key_policy(_Refuse())
        try:
            self.client.connect(self.host, **self.ssh_kwargs)
        except (paramiko.BadHostKeyException, paramiko.AuthenticationException) as error:
            raise PermissionError(str(error)) from error  # is not tried again
        self.ftp = self.client.open_sftp()


class _Refuse(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    def missing_host_key(self, _: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        raise PermissionError(
            f"~/.ssh/known_hosts does not hold the {key.get_name()} key of {hostname}; connect once with ssh"
        )
