"""Peers run in environments of their own, which pytest does not have."""

collect_ignore = ["peers"]
