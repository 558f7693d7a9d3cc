import socket

import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from storage.tables import Store


@pytest.fixture(scope="session")
def s3_server():
    """A real S3-compatible server on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def s3_store(s3_server, request):
    import boto3

    bucket = f"shop-{abs(hash(request.node.nodeid))}"
    options = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
    }
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=bucket)
    return Store(f"s3://{bucket}/stores/shop", options)


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path):
    """A fresh store: once in a local folder, once on the S3-compatible server."""
    return Store(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_store")
