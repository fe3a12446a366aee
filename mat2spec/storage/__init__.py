"""Files, folders and locks of a run, on a disk or in an object store. Knows no physics."""
