# SPDX-License-Identifier: GPL-3.0-or-later
"""Undo what WAL-G did to an object, by the ordinary program of each step and not by WAL-G.

WAL-G v0.2.19 hands out a truncated object with exit 0; ``lz4`` does not. An object is a compressed stream, and around that an
encrypted one where the settings name a key.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from .openpgp import PacketError, literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PROGRAMS = {
    ".lz4": ("lz4", "-d", "-c"),
    ".zst": ("zstd", "-d", "-c"),
    ".br": ("brotli", "-d", "-c"),
    ".lzma": ("xz", "--format=lzma", "-d", "-c"),
}
"""Decompression from standard input to standard output, by the ending of the name."""
PLAIN = frozenset({"", ".tar", ".history", ".partial", ".backup"})
"""Endings of objects that are stored uncompressed."""
NOT_READ = (
    "WALG_GPG_KEY_ID",
    "WALG_LIBSODIUM_KEY",
    "WALG_LIBSODIUM_KEY_PATH",
    "WALG_CSE_KMS_ID",
    "YC_CSE_KMS_KEY_ID",
    "WALG_ENVELOPE_PGP_KEY",
    "WALG_ENVELOPE_PGP_KEY_PATH",
)
"""Encryptions that no ordinary program undoes, or by a key that lies in somebody's keyring."""
_CHECKED = {".lz4": b"\x04\x22\x4d\x18", ".zst": b"\x28\xb5\x2f\xfd"}
"""Formats that can carry a checksum of the content, with their magic. Bit 2 of the byte after it says whether this one does."""
_SAID_BYTES = 2000
_WRONG_KEY = ("No secret key", "Bad passphrase")
"""gpg's words for a key that does not fit, in its own language."""
_BLOCK_BYTES = 2**20


class DecodeError(Exception):
    """The object is damaged; the message says who found that."""


class CannotDecodeError(Exception):
    """Nothing is said of the object: what it takes to undo it is not here; the message names it."""


@dataclass(frozen=True)
class _Step:
    """A program at work, and the file that its standard error goes to."""

    program: str
    process: subprocess.Popen[bytes]
    out: IO[bytes]
    said: IO[bytes]

    def judge(self, name: str) -> None:
        if self.process.wait() != 0:
            self.said.seek(0)
            words = _tail(self.said.read(_SAID_BYTES)) or f"exit {self.process.returncode}"
            if any(text in words for text in _WRONG_KEY):
                raise CannotDecodeError(f"{name} is encrypted by another key: {self.program} says: {words}")
            raise DecodeError(f"{name} is damaged: {self.program} says: {words}")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Decoder:
    """Undoes the objects of one archive. A context manager: the key lives in a folder of its own for so long."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._decrypt: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Raises CannotDecodeError for a key that cannot be used."""
        named = [name for name in NOT_READ if self._settings.get(name)]
        if named:
            raise CannotDecodeError(f"the archive is encrypted by {named[0]}, which is not read here")
        if any(self._settings.get(name) for name in ("WALG_PGP_KEY", "WALG_PGP_KEY_PATH")):
            try:
                # Short, since gpg's agent listens on a socket in it; and in memory, where there is a place for that.
                where = "/run" if os.access("/run", os.W_OK) else None
                self._folder = tempfile.TemporaryDirectory(prefix="dkey-", dir=where)
                self._import(self._folder.name)
            except (OSError, subprocess.SubprocessError) as error:
                self._close()
                raise CannotDecodeError(
                    f"the PGP key of the settings could not be loaded: {error}"
                ) from error
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(self, *_about: object) -> None:
        self._close()

    def _close(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            # The agent of this folder, which would outlive it otherwise.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                words = ["gpgconf", "--homedir", folder.name, "--kill", "gpg-agent"]
                subprocess.run(words, capture_output=True, timeout=10, check=False)
            folder.cleanup()

    def _import(self, home: str) -> None:
        key = self._settings.get("WALG_PGP_KEY", "")
        if not key:
            path = Path(self._settings["WALG_PGP_KEY_PATH"])
            try:
                key = path.read_text(encoding="ascii")
            except (OSError, ValueError) as error:
                raise CannotDecodeError(f"WALG_PGP_KEY_PATH: {path}: {error}") from error
        phrase = Path(home, "phrase")
        phrase.touch(mode=0o600)
        phrase.write_text(self._settings.get("WALG_PGP_KEY_PASSPHRASE", ""), encoding="utf-8")
        common = ("gpg", "--homedir", home, "--batch", "--quiet", "--no-permission-warning")
        unlock = ("--pinentry-mode", "loopback", "--passphrase-file", str(phrase))
        try:
            done = subprocess.run(
                # WAL-G takes the newlines of a key in the environment as backslash and n.
                [*common, *unlock, "--import"],
                input=key.replace("\\n", "\n").encode(),
                capture_output=True,
                timeout=60,
                check=False,
            )
        except FileNotFoundError as error:
            raise CannotDecodeError("the archive is encrypted, and gpg is not installed here") from error
        if done.returncode != 0:
            raise CannotDecodeError(f"the PGP key of the settings is none: {_tail(done.stderr)}")
        self._decrypt = (*common, *unlock, "--unwrap", "--decrypt")

    def stream(self, name: str, chunks: Iterable[bytes]) -> contextlib.AbstractContextManager[IO[bytes]]:
        """The content of an object; what the caller leaves of it is read to its end, since damage may lie there.

        Raises DecodeError where a program refuses it, CannotDecodeError where there is none, and whatever ``chunks`` raises,
        each in place of what the caller made of the content meanwhile.
        """
        ending = _ending(name)
        if ending not in PROGRAMS and ending not in PLAIN:
            raise CannotDecodeError(f"{name} ends in {ending}, for which no program is known here")
        plain = self._decrypted(name, chunks) if self._decrypt else chunks
        return _through(name, PROGRAMS.get(ending), plain)

    def proves(self, name: str, head: bytes) -> bool:
        """Whether a wrong byte in the object that begins with ``head`` is found by reading it.

        By the checksum of the encryption, or of the compression where there is one: WAL-G's zstd, lzma and brotli have none.
        """
        magic = _CHECKED.get(_ending(name))
        if self._decrypt:
            return True
        return (
            magic is not None
            and head.startswith(magic)
            and len(head) > len(magic)
            and bool(head[len(magic)] & 4)
        )

    def _decrypted(self, name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        with _through(name, self._decrypt, chunks) as packet:
            try:
                yield from literal(packet)
            except PacketError as error:
                raise DecodeError(f"{name} is damaged: {error}") from error

    def read(self, name: str, raw: bytes) -> bytes:
        """The content of a small object. Raises as :meth:`stream`."""
        with self.stream(name, (raw,)) as content:
            return content.read()


@contextlib.contextmanager
def _through(name: str, program: tuple[str, ...] | None, chunks: Iterable[bytes]) -> Iterator[IO[bytes]]:
    """What a program makes of ``chunks``; without one, the same as a stream. Raises as :meth:`Decoder.stream`."""
    read, write = os.pipe()
    reader: IO[bytes] = os.fdopen(read, "rb")
    writer = os.fdopen(write, "wb")
    fault: list[BaseException] = []
    feeder = threading.Thread(target=_feed, args=(chunks, writer, fault), daemon=True)
    with contextlib.ExitStack() as stack:
        stack.callback(_end, writer)
        step = None
        if program is not None:
            try:
                said = stack.enter_context(tempfile.TemporaryFile())
            except OSError as error:
                reader.close()
                raise CannotDecodeError(f"{name}: no temporary file: {error}") from error
            try:
                step = _start(name, program, reader, said)
            finally:
                reader.close()
            stack.callback(step.end)
            reader = step.out
        stack.callback(reader.close)
        feeder.start()
        try:
            yield reader
        finally:
            # To the end, also after a fault: only then the program's own word says whether the object is damaged.
            while reader.read(_BLOCK_BYTES):
                pass
            feeder.join()
            if fault:
                raise fault[0]
            if step is not None:
                step.judge(name)


def _start(name: str, program: tuple[str, ...], source: IO[bytes], said: IO[bytes]) -> _Step:
    try:
        process = subprocess.Popen(
            program,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C"},
        )
    except FileNotFoundError as error:
        words = f"{name} needs the program {program[0]}, which is not installed here"
        raise CannotDecodeError(words) from error
    except OSError as error:
        raise CannotDecodeError(f"{name}: {program[0]} could not be started: {error}") from error
    if process.stdout is None:
        raise CannotDecodeError(f"{program[0]} has no output")
    return _Step(program[0], process, process.stdout, said)


def _ending(name: str) -> str:
    """From the last dot of the file's name on."""
    file = name.rpartition("/")[2]
    return file[file.rfind(".") :] if "." in file else ""


def _feed(chunks: Iterable[bytes], sink: IO[bytes], fault: list[BaseException]) -> None:
    """Write ``chunks`` into ``sink``, and end both; ``fault`` gets what went wrong, which is raised where the stream is read."""
    close = getattr(chunks, "close", None)
    try:
        # The source first: what it still finds out at its end explains a broken pipe.
        with contextlib.ExitStack() as stack:
            stack.callback(_end, sink)
            if close is not None:
                stack.callback(close)
            for chunk in chunks:
                sink.write(chunk)
    except BrokenPipeError:
        # Whoever reads ended first, and says why.
        return
    except BaseException as error:  # noqa: BLE001 - of a thread: raised again where the stream is read
        fault.append(error)


def _end(sink: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        sink.close()


def _tail(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split())[-300:]
