"""Rows of a version in memory."""

from tbps.gallery.store.rows import Rows


def test_space_for_further_rows_is_zeroed() -> None:
    """Freed memory may hold erased embeddings, which must not reappear in the unused space of the next version."""
    for _ in range(20):  # the C library reuses freed blocks of this size
        rows = Rows.room_for(1000, 24)
        room = rows.room
        assert not room.embeddings.any() and not room.row_ids.any() and not (room.ids != b"").any()
        room.embeddings[:], room.row_ids[:], room.ids[:] = 0.25, 7, b"0123456789abcdef01234567"
        del rows, room
