# SPDX-License-Identifier: Apache-2.0
"""Each run is for one connector: pytest --connector mooncake|nixl. The pair, a plain instance and one proxy stand for
the whole run, with Mooncake a second proxy without the KV relay; after every test nothing may be held anywhere."""
import uuid

import pytest
from harness import ABORT_TIMEOUT_S, ROOT, Proxy, Set, wait_until

RUN = ROOT / "build/real"


def pytest_addoption(parser):
    parser.addoption("--connector", choices=("mooncake", "nixl"), default="mooncake")
    parser.addoption("--keep-up", action="store_true", help="leave the instances running at the end")


def pytest_configure(config):
    config.addinivalue_line("markers", "mooncake: only with that connector")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--connector") == "mooncake":
        return
    chosen = [item for item in items if not item.get_closest_marker("mooncake")]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.fixture(scope="session")
def connector(request):
    return request.config.getoption("--connector")


@pytest.fixture(scope="session")
def keep_up(request):
    return request.config.getoption("--keep-up")


@pytest.fixture(scope="session")
def plain(keep_up):
    """What every text is compared with: one instance that has never heard of KV transfers."""
    instance = Set("plain", RUN / "plain")
    yield instance.plain
    if not keep_up:
        instance.down()


@pytest.fixture(scope="session")
def pair(connector, keep_up):
    both = Set(connector, RUN / connector)
    yield both
    if not keep_up:
        both.down()


@pytest.fixture(scope="session")
def proxy(pair):
    """As it comes; with Mooncake that is with the KV relay."""
    one = Proxy(pair, *(("--kv-relay", "control") if pair.mode == "mooncake" else ()))
    yield one
    one.stop()


@pytest.fixture(scope="session")
def direct(pair):
    """The decode asks the prefill itself."""
    one = Proxy(pair, "--kv-relay", "off")
    yield one
    one.stop()


@pytest.fixture
def fresh():
    """Begins a prompt that no cache has seen."""
    return f"{uuid.uuid4().hex[:12]} "


def settle(pair, limit_s=3 * ABORT_TIMEOUT_S):
    for instance in (pair.prefill, pair.decode):
        wait_until(lambda: instance.held() or True, limit_s, f"{instance.url} lets go of everything")


@pytest.fixture
def nothing_held(pair):
    yield
    settle(pair)
