"""Boxed faces as other programs write them down: one reader a format, one judge of what they say."""
