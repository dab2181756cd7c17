"""What blocks are made of: layers and tracks that own weights and call operations, and settings that blocks share."""
