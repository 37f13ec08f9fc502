"""What the command line does against a running server (`remote.py` asks, `table.py` shows the answers), or against a
store: `doctor.py` examines it (`advice.py` writes what is to be added), `sweep.py` removes what no upload knows.
"""
