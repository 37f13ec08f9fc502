"""stdin into an object, with boto3."""

import sys

import boto3
from boto3.s3.transfer import TransferConfig

config = TransferConfig(multipart_chunksize=8 << 20, max_concurrency=4)
boto3.client("s3").upload_fileobj(sys.stdin.buffer, "bench", sys.argv[1], Config=config)
