import os
from pathlib import Path

import pytest
from sync_parts import MOSQUITTO, Broker

from edge.identity import DeviceKey


@pytest.fixture
async def make_broker(tmp_path):
    """Starts a mosquitto with these lines of configuration."""
    if MOSQUITTO is None and not os.environ.get("CI"):
        pytest.skip("mosquitto is not installed")
    made = []

    async def make(*lines):
        folder = tmp_path / f"broker-{len(made)}"
        folder.mkdir()
        made.append(Broker(folder, "\n".join(lines)))
        await made[-1].start()
        return made[-1]

    yield make
    for one in made:
        await one.kill()


@pytest.fixture
async def broker(make_broker):
    return await make_broker()


@pytest.fixture(scope="session")
def device_key(tmp_path_factory):
    return DeviceKey.create(Path(tmp_path_factory.mktemp("device")) / "device.key")


@pytest.fixture(scope="session")
def hub_key(tmp_path_factory):
    return DeviceKey.create(Path(tmp_path_factory.mktemp("hub")) / "hub.key")
