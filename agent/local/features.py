"""The vision features of one picture, and files of them that the processes of a host share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from guiderail.agent.disk import is_full
from guiderail.agent.errors import SetupError


@dataclass(frozen=True, eq=False)
class Features:
    """Of one picture. pooled: (image tokens, hidden size). deep: the same shape per deepstack layer; Qwen2.5-VL has none."""

    pooled: Tensor
    deep: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Of all tensors together."""
        return self.pooled.nbytes + sum(layer.nbytes for layer in self.deep)

    def to(self, device: torch.device) -> Features:
        """The same features on `device`."""
        return Features(self.pooled.to(device), tuple(layer.to(device) for layer in self.deep))


class FeatureFolder:
    """Feature files of a host. A file appears whole (atomic rename) or not at all; over max_bytes the oldest are deleted.

    Raises SetupError where the folder cannot be made or written, at the start and later.
    """

    def __init__(self, path: Path, max_bytes: int):
        self.path, self.max_bytes = path, max_bytes
        with self._usable():
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        self._held = sum(size for _, size, _ in self._files())

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return (self.path / f"{name}.safetensors").exists()

    def read(self, name: str) -> Features | None:
        """Memory-mapped, so processes that read the same file share its pages. None where the file is
        missing or holds no features."""
        file = self.path / f"{name}.safetensors"
        try:
            tensors = load_file(file)
            os.utime(file)
            return Features(tensors["pooled"], tuple(tensors[f"deep.{i}"] for i in range(len(tensors) - 1)))
        except (OSError, SafetensorError, KeyError):
            return None

    def write(self, name: str, features: Features) -> None:
        """Replaces a file of that name."""
        tensors = {"pooled": features.pooled, **{f"deep.{i}": layer for i, layer in enumerate(features.deep)}}
        with self._usable():
            handle, draft = tempfile.mkstemp(dir=self.path, suffix=".part")
            os.close(handle)
            try:
                save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, draft)
                os.replace(draft, self.path / f"{name}.safetensors")
            finally:
                Path(draft).unlink(missing_ok=True)
        self._held += features.nbytes
        if self._held > self.max_bytes:
            self._make_room()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if is_full(error):  # said with what goes on once there is room
                raise
            raise SetupError(
                f"vision features cannot be kept in {self.path}: {error.strerror}; give another folder as "
                "rollout.features=FOLDER or GUIDERAIL_FEATURES=FOLDER, or none"
            ) from None

    def _make_room(self) -> None:
        """Down to three quarters, so that a full folder is not listed at every write."""
        files = sorted(self._files())
        self._held = sum(size for _, size, _ in files)
        for _, size, file in files:
            if self._held <= self.max_bytes * 3 // 4:
                break
            file.unlink(missing_ok=True)
            self._held -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(time, bytes, path) of each file. Another process may delete files meanwhile."""
        for file in self.path.glob("*.safetensors"):
            try:
                state = file.stat()
            except OSError:
                continue
            yield state.st_mtime, state.st_size, file
