"""Rows of a version in memory."""

from tbps.gallery.store.rows import Rows


def test_room_for_further_rows_holds_nothing_of_freed_memory() -> None:
    """An erased embedding must not come back behind the rows in use of the next version, whose memory it lay in."""
    for _ in range(20):  # the C library reuses blocks of this size from the second one on
        rows = Rows.room_for(1000, 24)
        room = rows.room
        assert not room.embeddings.any() and not room.row_ids.any() and not (room.ids != b"").any()
        room.embeddings[:], room.row_ids[:], room.ids[:] = 0.25, 7, b"0123456789abcdef01234567"
        del rows, room
