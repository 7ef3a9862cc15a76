"""HubPlace: a repository of the Hugging Face Hub, where files arrive as commits."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from mocha_pipe.teacher_cache.sharing.places.place import Place


class HubPlace(Place):
    """A folder in a repository. A commit appears whole, and the Hub does not ask for content that it has."""

    batch = 32
    """The Hub limits commits per hour; one of this many units holds about a gigabyte of a large cache."""

    def send(self, files: Mapping[str, Path], stale: Sequence[str], there: Collection[str]) -> list[str]:  # noqa: ARG002
        """As `Place.send`, but all files in one commit, and the last owner of a name wins.

        Raises:
            TransferError: the Hub cannot be reached, or does not let us in.
        """

        def commit(hub: Any) -> None:
            where = hub.resolve_path(self.root)
            prefix = f"{where.path_in_repo}/" if where.path_in_repo else ""
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationAdd(prefix + name, str(path)) for name, path in files.items()
            ]
            operations += [CommitOperationDelete(prefix + name) for name in stale]
            HfApi(endpoint=hub.endpoint, token=hub.token).create_commit(
                where.repo_id,
                operations,
                commit_message=f"teacher cache: {len(files)} files",
                repo_type=where.repo_type,
                revision=where.revision,
            )

        self._writing(commit)
        return list(files)
