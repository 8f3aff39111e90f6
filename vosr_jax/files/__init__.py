"""Files on disks and in buckets: one path type, one atomic way to write."""

from vosr_jax.files.atomic import (
    create,
    folder_size,
    make_folder,
    remove_parts,
    whole_file,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)
from vosr_jax.files.paths import (
    absolute,
    is_remote,
    listing,
    local_or_epath,
    read_json_object,
    reading,
    reason_of,
    size_of,
    to_path,
    writing,
)

__all__ = [
    "absolute",
    "create",
    "folder_size",
    "is_remote",
    "listing",
    "local_or_epath",
    "make_folder",
    "read_json_object",
    "reading",
    "reason_of",
    "remove_parts",
    "size_of",
    "to_path",
    "whole_file",
    "whole_folder",
    "write_bytes",
    "write_json",
    "write_text",
    "writing",
]
