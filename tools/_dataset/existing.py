"""What is in the place of a data set already: nothing, the very same set, or something else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from proofrun.data.lists import Split, check_images, list_hash, read_split
from proofrun.errors import DataError, WriteError, one_line

from .record import RECORD, Note, Record
from .source import Source

_SAMPLE = 5000  # files of each split of which the first and the last bytes are looked at


def is_free(dst: Path) -> bool:
    return not dst.exists() or (dst.is_dir() and not any(dst.iterdir()))


def existing(
    dst: Path,
    wanted: Note,
    sources: Mapping[str, Source],
    unrecorded: Record | None,
    own_images: bool,
) -> str | None:
    """What to say about a complete set in `dst`; None if the place is free, WriteError else.

    `own_images`: a bad one is as its source has it, and said; else the set is not complete.
    """
    try:
        if is_free(dst):
            return None
        record = _check(dst, wanted, sources, unrecorded)
        bad = bad_image(dst, record)
        if bad and not own_images:
            raise DataError(bad)
        return f"{dst}: is complete, nothing to do: {record.said()}{advice(dst, bad)}"
    except DataError as error:
        why = str(error).partition(";")[0]  # without its advice, which is for a reader of the data
        raise WriteError(
            f"{dst}: is there already and is not a complete {wanted.set} set ({why}); move it away "
            "or give another --dst"
        ) from None
    except OSError as error:
        raise WriteError(
            f"{dst}: cannot be read ({error.strerror}); mend it or give another --dst"
        ) from None


def bad_image(dst: Path, record: Record) -> str:
    """What is wrong with the first bad image of a sample, or ""."""
    try:
        for split in record.images:
            check_images(read_split(dst, split, record.classes), sample=_SAMPLE)
    except DataError as error:
        return str(error).partition(";")[0]
    return ""


def advice(dst: Path, bad: str) -> str:
    """What to do about a bad image, behind a line that says what was made."""
    do = f"python tools/dataset.py verify {dst} --quarantine BAD"
    return f"; but {bad}: `{do}` moves what is bad to BAD" if bad else ""


def _check(
    dst: Path, wanted: Note, sources: Mapping[str, Source], unrecorded: Record | None
) -> Record:
    """The record of a complete set; DataError if anything is missing or another set's."""
    try:
        record = Record.model_validate_json((dst / RECORD).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if unrecorded is None:
            raise DataError(f"there is no {RECORD}") from None
        record = unrecorded
    except ValidationError as error:
        raise DataError(f"{RECORD} is not ours: {one_line(error)}") from None
    if record.set != wanted.set:
        raise DataError(f"it is a {record.set} set")
    if record.settings != wanted.settings and record.lists:
        raise DataError("it was made from other files or with other settings")
    _check_archives(record, sources)
    hashes: dict[Split, str] = {}
    for split, count in record.images.items():
        images = read_split(dst, split, record.classes)
        if len(images.files) != count:
            raise DataError(f"{split}.txt has {len(images.files)} images, not {count}")
        hashes[split] = list_hash(images)
    if record.lists and record.lists != hashes:
        raise DataError("its lists are not those that were written")
    return record.model_copy(update={"lists": hashes})


def _check_archives(record: Record, sources: Mapping[str, Source]) -> None:
    """By size and time, else by MD5. Raises DataError for others, ArchiveError as `finish`."""
    if record.archives.keys() != sources.keys():
        raise DataError("it was made from other archives")
    for name, archived in record.archives.items():
        source = sources[name]
        if archived.bytes != source.identity.bytes:
            raise DataError("it was made from other archives")
        if not archived.published and not source.any_archive:
            raise DataError("it was made with --any-archives, which was not given now")
        if archived.mtime_ns == source.identity.mtime_ns:
            continue
        said = "hashed, since it has not the time of the one that the set was made from"
        print(f"{source.path}: {said}", file=sys.stderr, flush=True)
        if source.finish().md5 != archived.md5:
            raise DataError(f"it was made from another {name}")
