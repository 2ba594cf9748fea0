"""What the protos say in words of their services, messages and fields: for documents made from the descriptors.

Compiled code does not carry comments, so `scripts/proto` keeps them beside it, as JSON: full name → text.
`python -m cloudless.rpc.comments DESCRIPTOR_SET` prints that for a descriptor set compiled with source info.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

import cloudless.rpc.v1

_FILE = "comments.json"


@functools.cache
def load_comments() -> Mapping[str, str]:
    """Return the comment of everything that has one, by its full name."""
    comments: dict[str, str] = json.loads((resources.files(cloudless.rpc.v1) / _FILE).read_text(encoding="utf-8"))
    return comments


def find_comments(files: FileDescriptorSet) -> dict[str, str]:
    """Return the comments that stand before, or in the line of, whatever has a name."""
    return {name: text for file in files.file for name, text in _of_file(file)}


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        text = " ".join((location.leading_comments or location.trailing_comments).split())
        name = _name_at(file, list(location.path)) if text else ""
        if name:
            yield f"{file.package}.{name}", text


def _name_at(file: Any, path: list[int]) -> str:
    """Follow a path of field numbers and indices; return the dotted name of where it leads, "" for what has none."""
    here, names = file, []
    while path:
        number, *path = path
        field = here.DESCRIPTOR.fields_by_number[number]
        if not field.is_repeated or field.message_type is None or not path:
            return ""
        here = getattr(here, field.name)[path.pop(0)]
        names.append(getattr(here, "name", ""))
    return ".".join(names) if all(names) else ""


if __name__ == "__main__":
    read = FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    print(json.dumps(find_comments(read), indent=0, sort_keys=True, ensure_ascii=False))
