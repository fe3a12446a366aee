"""The command line: `mat2spec` and its subcommands."""
