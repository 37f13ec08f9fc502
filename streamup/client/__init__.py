"""What the command line does against a running server: `remote.py` asks, `table.py` shows the answers."""
