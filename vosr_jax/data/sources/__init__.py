"""Sources of images: random access by index, in the same order on every machine."""

from vosr_jax.data.sources.files import FileSource, file_source, folder_source
from vosr_jax.data.sources.parsing import parse_sources
from vosr_jax.data.sources.source import Source

__all__ = ["FileSource", "Source", "file_source", "folder_source", "parse_sources"]
