"""Preparation of a folder or tar set as filtered ArrayRecord shards, on Apache Beam."""
