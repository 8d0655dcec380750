"""From files, archives and videos to rows of a gallery."""
