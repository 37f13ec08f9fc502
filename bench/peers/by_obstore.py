"""stdin into an object, with obstore."""

import os
import shutil
import sys

import obstore
from obstore.store import S3Store

store = S3Store("bench", endpoint=os.environ["AWS_ENDPOINT_URL"], client_options={"allow_http": True})
with obstore.open_writer(store, sys.argv[1], buffer_size=8 << 20, max_concurrency=4) as target:
    shutil.copyfileobj(sys.stdin.buffer, target)
