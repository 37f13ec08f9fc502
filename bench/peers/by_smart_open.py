"""stdin into an object, with smart_open. It sends one part after another."""

import shutil
import sys

import smart_open

with smart_open.open(f"s3://bench/{sys.argv[1]}", "wb", transport_params={"min_part_size": 8 << 20}) as target:
    shutil.copyfileobj(sys.stdin.buffer, target)
