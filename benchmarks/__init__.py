"""Programs that measure what the documentation claims; nothing of the package needs them."""
