"""Weight offsets: reading them, merging them into a UNet or adding them beside it, and taking them off again."""
