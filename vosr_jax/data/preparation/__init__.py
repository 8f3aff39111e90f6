"""From a folder or tar set to filtered ArrayRecord shards, on Apache Beam."""
