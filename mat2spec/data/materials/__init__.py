"""The materials table: schema, shards, and the inputs of a screening."""
