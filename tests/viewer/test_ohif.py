"""A radiologist's view: the reports in OHIF, served with Orthanc's DICOMweb, in headless Chromium.

`make viewer` installs the viewer and runs this; the screenshots go to `docs/pictures/`.
"""

from __future__ import annotations

import http.client
import mimetypes
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dicom_node.adapters.reporter import SrReporter
from dicom_node.domain.assessment import HandBox
from dicom_node.domain.delivery import ReportKind
from tests.builders.radiographs import radiograph
from tests.builders.reports import assessment, request_for
from tests.peers.orthanc import PROGRAM, Orthanc, running_orthanc

pytestmark = [pytest.mark.viewer, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "build" / "ohif" / "package" / "dist"
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DRIVER, BROWSER = Path("/usr/bin/chromedriver"), Path("/usr/bin/chromium")
PICTURES = ROOT / "docs" / "pictures"
WAIT_SECONDS = 240.0
CONFIG = """
window.config = {
  routerBasename: '/', showStudyList: true, extensions: [], modes: [],
  showLoadingIndicator: true, investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'pacs',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'pacs',
    configuration: {
      friendlyName: 'Orthanc', name: 'pacs', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      wadoUriRoot: '/wado', qidoSupportsIncludeField: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
      supportsWildcard: true, bulkDataURI: { enabled: true },
    },
  }],
};
"""


def handler_for(pacs: Orthanc) -> type[BaseHTTPRequestHandler]:
    """Serves OHIF's files, and Orthanc's DICOMweb under the same origin."""
    address = urlsplit(pacs.url).netloc

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith(("/dicom-web", "/wado")):
                self.pass_on()
                return
            file = DIST / urlsplit(self.path).path.lstrip("/")
            if not file.is_file():  # a page of the viewer
                file = DIST / "index.html"
            if file.name == "app-config.js":
                self.answer(200, "text/javascript", CONFIG.encode())
                return
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            kind = "application/wasm" if file.suffix == ".wasm" else kind
            self.answer(200, kind, file.read_bytes())

        def pass_on(self) -> None:
            with closing(http.client.HTTPConnection(address, timeout=60)) as upstream:
                accept = self.headers.get("Accept", "*/*")
                upstream.request("GET", self.path, headers={"Accept": accept})
                answer = upstream.getresponse()
                kind = answer.getheader("Content-Type", "application/octet-stream")
                status, body = answer.status, answer.read()
            self.answer(status, kind, body)

        def answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    return Handler


@contextmanager
def serving(pacs: Orthanc) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(pacs))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Where OHIF runs, and the study with a radiograph and its reports."""
    for needed in (PROGRAM, DICOMWEB, DRIVER, BROWSER, DIST / "index.html"):
        if not needed.exists():
            pytest.skip(f"{needed} is missing: `make viewer` installs it")
    folder = tmp_path_factory.mktemp("viewer")
    source = radiograph(0, ImageLaterality="L")
    known = assessment()
    hand = HandBox(left=60, top=40, right=430, bottom=600)
    finding = replace(known, prediction=replace(known.prediction, hand_box=hand, saliency=None))
    request = request_for(folder / "source.dcm", source, finding, kinds=frozenset(ReportKind))
    with running_orthanc(folder / "pacs", plugins=[DICOMWEB]) as pacs, serving(pacs) as url:
        pacs.post("/instances", (folder / "source.dcm").read_bytes())
        for report in SrReporter().build(request):
            pacs.post("/instances", report.encoded)
        yield url, str(source.StudyInstanceUID)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="`make viewer` installs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--use-gl=angle",
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=1600,1000",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-quic", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=str(DRIVER))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(WAIT_SECONDS)
    driver.set_script_timeout(WAIT_SECONDS)
    yield driver
    driver.quit()


def text_of(browser: Any) -> str:
    return str(browser.execute_script("return document.body ? document.body.textContent : ''"))


def wait_for_text(browser: Any, wanted: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while wanted not in text_of(browser):
        if time.monotonic() > deadline:
            browser.save_screenshot(str(ROOT / "build" / "ohif" / "failed.png"))
            pytest.fail(f"{wanted!r} does not appear; see build/ohif/failed.png")
        time.sleep(0.5)


def open_series(browser: Any, description: str) -> None:
    """End the tour that greets a new user; double click on the thumbnail of a series."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    wait_for_text(browser, description)
    wait_for_text(browser, "Skip all")
    browser.find_element(By.XPATH, "//*[text()='Skip all']").click()
    found = browser.find_elements(By.CSS_SELECTOR, "[data-cy^='study-browser-thumbnail']")
    [thumbnail] = [item for item in found if description in item.text]
    browser.execute_script("arguments[0].scrollIntoView()", thumbnail)
    ActionChains(browser).double_click(thumbnail).perform()


def screenshot(browser: Any, name: str) -> None:
    from PIL import Image

    time.sleep(3)  # the canvas is painted after the text of the page is there
    with Image.open(BytesIO(browser.get_screenshot_as_png())) as image:
        image.convert("RGB").quantize(128).save(PICTURES / name, optimize=True)


def test_the_text_is_readable(study: tuple[str, str], browser: Any) -> None:
    url, uid = study
    browser.get(f"{url}/viewer?StudyInstanceUIDs={uid}")
    open_series(browser, "IA Idade Óssea - texto")
    wait_for_text(browser, "Idade óssea estimada: 10 anos e 6 meses (126,3 meses).")
    wait_for_text(browser, "Não verificado por médico")
    screenshot(browser, "ohif-text.png")


def test_the_measurements_stand_on_the_radiograph(study: tuple[str, str], browser: Any) -> None:
    from selenium.webdriver.common.by import By

    url, uid = study
    browser.get(f"{url}/viewer?StudyInstanceUIDs={uid}")
    open_series(browser, "IA Idade Óssea - resultado")
    wait_for_text(browser, "continue tracking measurements")
    browser.find_element(By.XPATH, "//button[.='No']").click()
    time.sleep(3)
    browser.set_window_size(1610, 1010)  # OHIF paints the values late, or with the next resize
    wait_for_text(browser, "XR Bone age: 126.35 mo")
    wait_for_text(browser, "Z-Score of measurement: -1.65")
    screenshot(browser, "ohif-measurements.png")


def test_the_picture_is_shown(study: tuple[str, str], browser: Any) -> None:
    url, uid = study
    browser.get(f"{url}/viewer?StudyInstanceUIDs={uid}")
    open_series(browser, "IA Idade Óssea - figura")
    time.sleep(8)
    screenshot(browser, "ohif-picture.png")
