"""Feature pages: HTML that opens from disk, made of what ``dbksvd.features`` collected."""
