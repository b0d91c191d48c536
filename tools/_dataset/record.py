"""What a data set was made from: its record, and the note of one that is being made."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from proofrun.data.lists import Split

from .source import Archived, Identity

#: What the data set was made from; the last file that is written.
RECORD = "dataset.json"


class Record(BaseModel):
    """`dataset.json`. `lists`: the hashes of `proofrun.data.lists.list_hash`.

    `quarantined`: list entries that a quarantine took out, of which images and lists are without.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: str
    settings: dict[str, str | int | float] = {}
    archives: dict[str, Archived] = {}
    images: dict[Split, int]
    classes: int
    lists: dict[Split, str]
    quarantined: int = 0

    def said(self) -> str:
        """In a line for people."""
        counts = ", ".join(f"{count} {split}" for split, count in self.images.items())
        hashes = " ".join(text[:12] for text in self.lists.values())
        others = [name for name, archived in self.archives.items() if not archived.published]
        warning = f"; not the published archives: {', '.join(others)}" if others else ""
        aside = f" ({self.quarantined} more in quarantine)" if self.quarantined else ""
        return f"{counts} images of {self.classes} classes{aside}, lists {hashes}{warning}"


class Note(BaseModel):
    """What an unfinished set is made from, and the MD5s that are known by now."""

    model_config = ConfigDict(extra="forbid")

    set: str
    settings: dict[str, str | int | float]
    archives: dict[str, Identity]
    md5: dict[str, str] = {}
