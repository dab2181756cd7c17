"""A browser and the 3D viewer, where they are installed; under REQUIRE_BROWSER, as in .ci/run, the browser must be."""

import os
import shutil
from pathlib import Path

import pytest

from app.report import viewer

INSTALLED = viewer.cached()
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser():
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        told = f"no browser is installed (looked for {', '.join(BROWSERS)})"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(f"{told}, which REQUIRE_BROWSER does not allow")
        pytest.skip(told)
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=executable, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def viewer_package() -> Path:
    """3Dmol.js: the package that VIEWER_PACKAGE names, or else the installed copy."""
    if named := os.environ.get("VIEWER_PACKAGE"):
        return Path(named)
    if not INSTALLED.exists():
        pytest.skip("no 3D viewer is installed (python -m app report install-viewer)")
    return INSTALLED


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """No test finds, or changes, what the user has installed."""
    monkeypatch.setattr(viewer, "cached", lambda: tmp_path / "cache" / INSTALLED.name)
