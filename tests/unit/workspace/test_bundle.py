"""A bundle is a tar that an operator can open; one that somebody made by hand is read without belief."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace

import pytest

from worker.secret_keys import read_keys
from worker.workspace.bundle import MOST_BYTES, Bundle, BundleError, LeftOut, read_tar, to_tar
from worker.workspace.sealing import seal, unseal

BUNDLE = Bundle(
    agent={"id": "a", "name": "Ada", "carrier": "AGENTS.md"},
    row={"name": "Ada"},
    settings=({"field": "model", "value": "m", "locked": False},),
    entry={"name": "Ada"},
    files={"AGENTS.md": b"Hello.", "notes/monday.txt": b"\xff\x00"},
    delivered={"AGENTS.md": "Hello."},
    masked=frozenset({"notes/monday.txt"}),
    left_out=(LeftOut("b", "why"),),
    whole=True,
)


def tar_of(*members: tuple[str, bytes], **attributes: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in attributes.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def changed(change: Callable[[dict[str, object]], object]) -> bytes:
    """The bundle's tar with another manifest."""
    with tarfile.open(fileobj=io.BytesIO(to_tar(BUNDLE))) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    manifest = json.loads(members["manifest.json"])
    change(manifest)
    return tar_of(("manifest.json", json.dumps(manifest).encode()), *list(members.items())[1:])


def test_it_comes_back_as_it_was_and_is_opened_by_any_tar() -> None:
    assert read_tar(to_tar(BUNDLE)) == BUNDLE
    with tarfile.open(fileobj=io.BytesIO(to_tar(BUNDLE))) as tar:
        assert tar.getnames() == [
            "manifest.json",
            "files/AGENTS.md",
            "files/notes/monday.txt",
            "delivered/AGENTS.md",
        ]


BAD = {
    "no tar that could be read": b"not a tar",
    "it has no manifest.json": tar_of(("files/a", b"")),
    "neither manifest.json nor a plain path": tar_of(("files/../../etc/passwd", b"x")),
    "files//etc/passwd in it is neither": tar_of(("files//etc/passwd", b"x")),
    "b in it is neither": tar_of(("files/a\\b", b"x")),
    "is a link, a folder": tar_of(("files/a", b""), type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "it holds files/a twice": tar_of(("files/a", b""), ("files/a", b"")),
    "more than 1001 files": tar_of(*((f"files/{n}", b"") for n in range(1100))),
    "manifest.json is not JSON": tar_of(("manifest.json", b"{")),
    "no bundle of this version": tar_of(("manifest.json", b"[]")),
    "is too large": tar_of(("files/a", bytes(MOST_BYTES + 1))),
    "more than 24 MB": bytes(25 * 1024 * 1024),
    "lists other files": changed(lambda manifest: manifest.update(files={})),
    "is not what its manifest.json says": changed(
        lambda manifest: manifest["files"]["files/AGENTS.md"].update(size=1)  # type: ignore[index]
    ),
    "lacks something": changed(lambda manifest: manifest.pop("row")),
    "another kind (TypeError)": changed(lambda manifest: manifest.update(settings=[{"field": 1}])),
    "its manifest.json lacks something or holds something of another kind": changed(
        lambda manifest: manifest.update(agent={"openclaw_id": {}})
    ),
    "holds text with NUL": changed(lambda manifest: manifest.update(row={"heartbeat_config": ["a\0"]})),
    "with half of a character": changed(lambda manifest: manifest.update(agent={"openclaw_id": "\ud800"})),
    "NaN, which is no number": changed(
        lambda manifest: manifest.update(settings=[{"field": "model", "value": float("nan")}])
    ),
    "more than 100 levels deep": changed(
        lambda manifest: manifest.update(entry=json.loads('{"a":' * 120 + "1" + "}" * 120))
    ),
}


@pytest.mark.parametrize("says", BAD)
def test_what_is_no_bundle_is_one_sentence(says: str) -> None:
    with pytest.raises(BundleError) as error:
        read_tar(BAD[says])
    assert says in str(error.value)


def test_an_entry_may_hold_what_its_owner_wrote() -> None:
    strange = replace(BUNDLE, entry={"name": "a\0\ud800"})
    assert read_tar(to_tar(strange)) == strange


def test_one_that_is_cut_off_is_damaged_wherever_it_is_cut() -> None:
    tar = to_tar(BUNDLE)
    for end in range(0, len(tar.rstrip(b"\0")), 511):
        with pytest.raises(BundleError):
            read_tar(tar[:end])


def test_only_its_key_opens_it_and_only_as_itself() -> None:
    tar, old, new = to_tar(BUNDLE), "o" * 32, "n" * 32
    assert unseal(seal(tar, (), "id"), (), "id", encrypted=False) == tar
    body = seal(tar, (old,), "id")
    assert unseal(body, (new, old), "id", encrypted=True) == tar
    for keys, place, given, says in [
        ((new,), "id", body, "cannot be decrypted"),
        ((old,), "other", body, "cannot be decrypted"),
        ((old,), "id", body[:20], "cannot be decrypted"),
        ((), "id", body, "is encrypted: set BUNDLE_KEY"),
    ]:
        with pytest.raises(BundleError, match=says):
            unseal(given, keys, place, encrypted=True)
    packed = seal(tar, (), "id")
    for given, says in ((b"no zlib at all", "cannot be unpacked"), (packed[:-8], "cut off")):
        with pytest.raises(BundleError, match=says):
            unseal(given, (), "id", encrypted=False)
    with pytest.raises(ValueError, match="at least 32 characters"):
        read_keys("short")
