import os
from pathlib import Path

import pytest
from sync_parts import MOSQUITTO, Broker

from edge.identity import DeviceKey


@pytest.fixture
def need_mosquitto():
    if MOSQUITTO is None and not os.environ.get("CI"):
        pytest.skip("mosquitto is not installed")


@pytest.fixture
async def broker(tmp_path, need_mosquitto):
    folder = tmp_path / "broker"
    folder.mkdir()
    made = Broker(folder)
    await made.start()
    yield made
    await made.kill()


@pytest.fixture(scope="session")
def device_key(tmp_path_factory):
    return DeviceKey.create(Path(tmp_path_factory.mktemp("device")) / "device.key")


@pytest.fixture(scope="session")
def hub_key(tmp_path_factory):
    return DeviceKey.create(Path(tmp_path_factory.mktemp("hub")) / "hub.key")
