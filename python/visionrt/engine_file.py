"""The engine file: a ZIP of stored members with a manifest, written and read safely.

Members are uncompressed, so a plan can be read or mapped without a copy; every member but the
manifest has its size and SHA-256 in the manifest and is checked when it is read. The writer is
deterministic: the same members give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from visionrt.atomic import replacing
from visionrt.errors import EngineFileError
from visionrt.manifest import Manifest, MemberInfo

MANIFEST = "manifest.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAX_MEMBERS = 256
_MAX_MANIFEST_BYTES = 16 << 20
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class EngineFile:
    """An open engine file. Use as a context manager, or call :meth:`close`.

    Args:
        path: of a ``*.engine`` file made by ``trtconvert``.

    Raises:
        EngineFileError: missing, not an engine file, damaged, unsafe, or of a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except FileNotFoundError as error:
            raise EngineFileError(
                f"an engine file at {self.path}", got="no such file", fix="Check the path."
            ) from error
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise EngineFileError(
                f"an engine file at {self.path}",
                got=str(error),
                fix="The file is damaged or is something else: build it again.",
            ) from error
        try:
            self._check_archive()
            self.manifest = self._read_manifest()
            self._check_members()
        except BaseException:
            self._zip.close()
            raise

    def read(self, member: str) -> bytes:
        """The bytes of a member, checked against the manifest's size and hash.

        Raises:
            EngineFileError: no such member, or its content does not match.
        """
        info = self.manifest.members.get(member)
        if info is None:
            raise self._bad(f"a member {member}", f"only {sorted(self.manifest.members)}")
        data = self._read_raw(member)
        if len(data) != info.bytes or hashlib.sha256(data).hexdigest() != info.sha256:
            raise self._bad(f"{member} to match its SHA-256", "different content")
        return data

    def close(self) -> None:
        """Close the archive. May be called twice."""
        self._zip.close()

    def __enter__(self) -> EngineFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _bad(self, expected: str, got: str) -> EngineFileError:
        return EngineFileError(
            f"{expected} in {self.path}",
            got=got,
            fix="The file is damaged or was tampered with: build it again.",
        )

    def _check_archive(self) -> None:
        infos = self._zip.infolist()
        if len(infos) > _MAX_MEMBERS:
            raise self._bad(f"at most {_MAX_MEMBERS} members", str(len(infos)))
        names = [i.filename for i in infos]
        if len(set(names)) != len(names):
            raise self._bad("distinct member names", "a name that occurs twice")
        total = self.path.stat().st_size
        for info in infos:
            if not _is_safe(info.filename):
                raise self._bad("plain relative member names", repr(info.filename))
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
                raise self._bad("stored members", f"{info.filename} compressed or encrypted")
            if info.file_size != info.compress_size or info.file_size > total:
                raise self._bad("member sizes within the file", f"{info.filename}")

    def _read_manifest(self) -> Manifest:
        if MANIFEST not in self._zip.namelist():
            raise EngineFileError(
                f"an engine file at {self.path}",
                got="a ZIP without manifest.json",
                fix="Give a file made by trtconvert build.",
            )
        if self._zip.getinfo(MANIFEST).file_size > _MAX_MANIFEST_BYTES:
            raise self._bad("a manifest below 16 MiB", "a larger one")
        try:
            value = json.loads(self._read_raw(MANIFEST))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._bad("a JSON manifest", str(error)) from error
        return Manifest.from_json(value, where=str(self.path))

    def _check_members(self) -> None:
        present = set(self._zip.namelist()) - {MANIFEST}
        listed = set(self.manifest.members)
        if present != listed:
            raise self._bad("exactly the listed members", f"a difference in {present ^ listed}")
        wanted = {p.member for p in self.manifest.plans}
        wanted |= {m for m in (self.manifest.twin, self.manifest.typed_graph) if m is not None}
        if not wanted <= listed:
            raise self._bad("every plan and graph named", f"no {sorted(wanted - listed)}")

    def _read_raw(self, member: str) -> bytes:
        try:
            return self._zip.read(member)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError) as error:
            # RuntimeError: a flag of the member's own header, which nothing has checked so far.
            raise self._bad(f"a readable member {member}", str(error)) from error


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return all(p not in ("", ".", "..") and set(p) <= _SAFE for p in parts)


def write_engine_file(
    path: str | os.PathLike[str], manifest: Manifest, members: Mapping[str, bytes]
) -> Manifest:
    """Write an engine file atomically and return its manifest with ``members`` filled in.

    Raises:
        InputDataError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    table = {k: MemberInfo(len(v), hashlib.sha256(v).hexdigest()) for k, v in members.items()}
    complete = Manifest(**{**vars(manifest), "members": table})
    text = json.dumps(complete.to_json(), indent=1, ensure_ascii=False).encode()
    with (
        replacing(path) as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive,
    ):
        # The manifest comes first, so that a reader finds it without a seek over the plans.
        for name, data in {MANIFEST: text, **members}.items():
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return complete
