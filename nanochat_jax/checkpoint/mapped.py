"""Memory of mapped files: given back by hand, or a model that passes through lies in it whole."""

import mmap


def drop_pages(mapped: mmap.mmap, start: int = 0, size: int | None = None) -> None:
    """Takes the whole pages among some bytes out of this process; touched again, they come back.

    The kernel takes clean pages back only under pressure. Until then they count as the process's
    own, so a container's limit may end it although nothing needs them.
    """
    end = len(mapped) if size is None else start + size
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length > 0 and hasattr(mmap, "MADV_DONTNEED"):  # Unix alone has it
        mapped.madvise(mmap.MADV_DONTNEED, first, length)
