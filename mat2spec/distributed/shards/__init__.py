"""Shards on Ray Data: process each once, and isolate the rows that kill their process."""
