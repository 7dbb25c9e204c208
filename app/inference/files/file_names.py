"""File names, which are bytes, are compared here, shown in messages, and made safe for lists and other disks.

A name that is no UTF-8 comes from the operating system with its odd bytes as lone surrogates, which no file in UTF-8 can hold.
"""

import hashlib
import os
import re
import unicodedata
from pathlib import PurePath

MAX_NAME_BYTES = 250  # Most disks allow 255 bytes; this leaves room for ".json".
DIGEST = 12  # This many hexadecimal digits tell shortened names apart.
# Line breaks and other control characters end a line of a list; readers of lists strip the space around a name.
UNSAFE = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]|^\\s+|\\s+$")
FORMULA = ("=", "+", "-", "@")  # A spreadsheet takes a cell that begins so for a formula, and may do what it says.
# What systems and programs put beside photos. Hidden files and folders, which begin with a dot, are left alone too.
BY_SYSTEMS = {
    "__macosx",
    "thumbs.db",
    "desktop.ini",
    "ehthumbs.db",
    "@eadir",
    "$recycle.bin",
    "system volume information",
}


def is_systems(name: str) -> bool:
    """Tell whether a file or folder of that name was put there by a system or a program."""
    return name.startswith(".") or name.casefold() in BY_SYSTEMS


def normalized(text: str) -> str:
    """Return the same text whichever way accents are written: macOS writes file names with accents apart (NFD), people
    type NFC.
    """
    return unicodedata.normalize("NFC", text)


def shown(path: PurePath | str) -> str:
    """Return a path for a message or a list: bytes that are no UTF-8 and line breaks stand as escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(repr(letter)[1:-1] if letter in "\n\r\x85\u2028\u2029" else letter for letter in text)


def spellings(name: str) -> tuple[str, ...]:
    """Return what a list in UTF-8 may call a file of this name: one whose bytes are no UTF-8 is read as Latin-1, too."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return normalized(shown(name)), normalized(os.fsencode(name).decode("latin-1"))
    return (normalized(name),)


def as_cell(text: str) -> str:
    """Return a text that a spreadsheet shows as it is: one that begins like a formula has an apostrophe before it."""
    return f"'{text}" if text.startswith(FORMULA) else text


def of_cell(cell: str) -> str:
    """Return the text that `as_cell` was given."""
    return cell[1:] if cell.startswith(tuple(f"'{sign}" for sign in FORMULA)) else cell


def safe_name(name: str) -> str:
    """Return a name that any list and any disk can hold: odd bytes and characters as %XX, and cut, with a digest, where
    too long.
    """
    encoded = os.fsencode(name)
    text = encoded.decode("utf-8", "surrogateescape")
    safe = "".join(f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter for letter in text)
    safe = UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), safe)
    if len(safe.encode()) <= MAX_NAME_BYTES:
        return safe
    kept = safe.encode()[: MAX_NAME_BYTES - DIGEST - 1].decode(errors="ignore")
    return f"{kept}~{hashlib.sha256(encoded).hexdigest()[:DIGEST]}"
