"""The page as a visitor uses it, in Chromium."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, Route, expect

from service.client import Client
from tests.web.conftest import Watched

SAMPLE = Path(__file__).resolve().parents[2] / "service" / "web" / "samples" / "petals.png"
DONE = re.compile("^Done:")
expect.set_options(timeout=60_000)


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


@pytest.fixture
def photo(png: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(png)
    return path


@contextmanager
def work(page: Page) -> Iterator[None]:
    """Do something that gives a new result, and wait for it."""
    shown = int(page.locator("#result").get_attribute("data-shown") or 0)
    yield
    expect(page.locator("#result")).to_have_attribute("data-shown", str(shown + 1))


def upload(page: Page, path: Path) -> None:
    with work(page):
        page.set_input_files("#file", path)
    expect(page.locator("#status")).to_have_text(DONE)


@pytest.fixture(scope="module")
def petals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of a sample, 192 x 128, so that a slow machine is not kept busy."""
    path = tmp_path_factory.mktemp("pictures") / "petals.png"
    with Image.open(SAMPLE) as image:
        image.crop((200, 60, 392, 188)).save(path)
    return path


def figure(page: Page, row: str, column: int) -> str:
    return page.locator("#figures tbody tr", has_text=row).locator("td").nth(column).inner_text()


def bijou_bytes(page: Page) -> int:
    return int(figure(page, "Bijou", 1).replace(",", ""))


class TestCompress:
    def test_upload_gives_pictures_and_figures(self, page: Page, photo: Path, png: bytes, server: str):
        upload(page, photo)
        with Client(server) as client:
            expected = client.encode(png, quality=60)
        assert bijou_bytes(page) == len(expected.data)
        # The service's own figure is rounded to four places; rounded again it may be off by one in the third.
        assert figure(page, "Bijou", 3) == f"{8 * len(expected.data) / (61 * 45):.3f}"
        assert figure(page, "Bijou", 4) == f"{expected.psnr_db:.2f}"
        assert page.locator("#figures tbody tr").count() == 4
        expect(page.locator("#chosen")).to_have_text(f"photo.png: 61 × 45 pixels, {len(png):,} bytes")
        stages = page.locator("#timing tbody td:first-child").all_inner_texts()
        assert {"Encode: flow", "Encode: prior", "Encode: entropy", "Decode: flow"} <= set(stages)

    def test_downloads_are_the_service_s_bytes(self, page: Page, photo: Path, png: bytes, server: str):
        upload(page, photo)
        with page.expect_download() as stream:
            page.click("#save-bij")
        with page.expect_download() as picture:
            page.click("#save-png")
        with Client(server) as client:
            expected = client.encode(png, quality=60)
            decoded = client.decode(expected.data)
        assert (stream.value.suggested_filename, picture.value.suggested_filename) == ("photo.bij", "photo.png")
        assert stream.value.path().read_bytes() == expected.data
        assert picture.value.path().read_bytes() == decoded.data

    def test_the_slider_changes_the_size(self, page: Page, photo: Path):
        upload(page, photo)
        before = bijou_bytes(page)
        page.focus("#quality")
        with work(page):
            page.keyboard.press("Home")
        assert bijou_bytes(page) < before
        expect(page.locator("#quality-value")).to_have_text("1")

    def test_lossless_is_checked_in_the_browser(self, page: Page, petals: Path):
        upload(page, petals)
        with work(page):
            page.check("input[value=lossless]")
        expect(page.locator("#exact")).to_have_text("Checked in this browser: all 24,576 pixels are equal.")
        assert figure(page, "Bijou", 4) == "equal"

    @pytest.mark.parametrize(
        ("aim", "value", "column", "fits"),
        [
            ("max_bytes", "800", 1, lambda v: v <= 800),
            ("target_bpp", "2.5", 3, lambda v: v <= 2.5),
            ("target_psnr", "36", 4, lambda v: v >= 36),
        ],
    )
    def test_targets(self, page: Page, aim: str, value: str, column: int, fits, photo: Path):
        upload(page, photo)
        with work(page):
            page.check(f"input[value={aim}]")
            page.fill(f"#{aim}", value)
        assert fits(float(figure(page, "Bijou", column).replace(",", "")))

    def test_another_model(self, page: Page, photo: Path, png: bytes, server: str):
        upload(page, photo)
        with Client(server) as client:
            (other,) = (model["name"] for model in client.models() if not model["default"])
            expected = client.encode(png, quality=60, model=other)
        with work(page):
            page.get_by_label("Model").select_option(other)
        with page.expect_download() as stream:
            page.click("#save-bij")
        assert stream.value.path().read_bytes() == expected.data

    def test_effort(self, page: Page, photo: Path, png: bytes, server: str):
        upload(page, photo)
        with Client(server) as client:
            expected = client.encode(png, quality=60, effort=1)
        with work(page):
            page.select_option("#effort", "1")
        with page.expect_download() as stream:
            page.click("#save-bij")
        assert stream.value.path().read_bytes() == expected.data

    def test_stable_is_reported(self, page: Page, photo: Path):
        page.check("#stable")
        upload(page, photo)
        expect(page.locator("#status")).to_have_text(re.compile(", (not )?stable"))

    def test_jpeg_and_webp_are_no_longer_than_bijou(self, page: Page, petals: Path):
        upload(page, petals)
        for name in ("JPEG", "WebP"):
            assert 0.3 * bijou_bytes(page) < int(figure(page, name, 1).replace(",", "")) <= bijou_bytes(page)
            assert 15 < float(figure(page, name, 4)) < float(figure(page, "Bijou", 4)) + 20

    def test_a_sample_by_keyboard_alone(self, page: Page):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        for _ in range(2):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_have_text(DONE)
        expect(page.locator("#chosen")).to_contain_text("hills.png")

    @pytest.mark.parametrize("way", ["drop", "paste"])
    def test_drop_and_paste(self, page: Page, png: bytes, way: str):
        page.evaluate(
            """([bytes, way]) => {
                const given = new DataTransfer();
                given.items.add(new File([new Uint8Array(bytes)], "given.png", { type: "image/png" }));
                document.dispatchEvent(way === "drop" ? new DragEvent("drop", { dataTransfer: given })
                                                      : new ClipboardEvent("paste", { clipboardData: given }));
            }""",
            [list(png), way],
        )
        expect(page.locator("#status")).to_have_text(DONE)
        expect(page.locator("#chosen")).to_contain_text("given.png")

    def test_a_format_the_browser_does_not_know(self, page: Page, pixels: np.ndarray, tmp_path: Path):
        path = tmp_path / "photo.tiff"
        Image.fromarray(pixels).save(path)
        upload(page, path)
        expect(page.locator("#chosen")).to_contain_text("61 × 45 pixels")


class TestCompare:
    def test_the_divider_by_mouse_and_keyboard(self, page: Page, petals: Path):
        upload(page, petals)
        clip = "document.querySelectorAll('.sheet canvas')[1].style.clipPath"
        start = page.evaluate(clip)
        page.evaluate("document.querySelector('.stage').scrollIntoView({ block: 'center' })")
        box = page.locator(".stage").bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.4, middle, steps=4)
        page.mouse.up()
        dragged = page.evaluate(clip)
        assert dragged != start
        assert float(page.input_value("#divider")) < 45
        page.focus("#divider")
        page.keyboard.press("End")
        assert page.input_value("#divider") == "100"
        assert page.evaluate(clip) != dragged

    def test_zoom_to_pixels(self, page: Page, petals: Path):
        upload(page, petals)
        page.click("button:text-is('4:1')")
        assert page.evaluate("document.querySelector('.sheet').offsetWidth") == 4 * 192
        assert page.evaluate("getComputedStyle(document.querySelector('.sheet canvas')).imageRendering") == "pixelated"
        expect(page.locator("button:text-is('4:1')")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("button:text-is('Fit')")).to_have_attribute("aria-pressed", "false")

    def test_another_codec_on_the_right(self, page: Page, petals: Path):
        upload(page, petals)
        expect(page.locator(".side.right")).to_have_text("Bijou")
        page.check("input[name=side][value=jpeg]")
        expect(page.locator(".side.right")).to_have_text("JPEG")


class TestErrors:
    def refused(self, watched: Watched, path: Path, text: str) -> None:
        watched.page.set_input_files("#file", path)
        expect(watched.page.locator("#alert .message")).to_contain_text(text)
        assert all("Failed to load resource" in line for line in watched.complaints)
        watched.complaints.clear()

    def test_not_a_picture(self, watched: Watched, tmp_path: Path):
        path = tmp_path / "notes.txt"
        path.write_text("no picture")
        self.refused(watched, path, "This is not a picture the service reads")
        watched.page.click("text=Dismiss")
        expect(watched.page.locator("#alert .message")).to_have_count(0)

    def test_a_damaged_stream(self, watched: Watched, png: bytes, server: str, tmp_path: Path):
        with Client(server) as client:
            stream = bytearray(client.encode(png).data)
        stream[len(stream) // 2] ^= 1
        path = tmp_path / "damaged.bij"
        path.write_bytes(stream)
        self.refused(watched, path, "This .bij file is damaged")

    def test_a_target_out_of_reach(self, watched: Watched, photo: Path):
        watched.page.check("input[value=max_bytes]")
        watched.page.fill("#max_bytes", "1")
        self.refused(watched, photo, "the smallest stream of this picture has")

    def test_too_large_is_said_before_it_is_sent(self, watched: Watched, tmp_path: Path):
        path = tmp_path / "large.png"
        with path.open("wb") as file:
            file.truncate(33 * 2**20)
        expect(watched.page.locator("#about")).to_contain_text("at most")
        sent = len(watched.requests)
        self.refused(watched, path, "this service takes at most 33,554,432")
        assert len(watched.requests) == sent

    def test_no_service(self, watched: Watched, photo: Path):
        watched.page.route("**/encode?*", lambda route: route.abort())
        self.refused(watched, photo, "The service does not answer")

    def test_a_busy_service_is_asked_again(self, watched: Watched, photo: Path):
        left = [2]

        def busy(route: Route) -> None:
            left[0] -= 1
            if left[0] >= 0:
                route.fulfill(status=503, headers={"Retry-After": "1"}, body="")
            else:
                route.continue_()

        watched.page.route("**/encode?*", busy)
        upload(watched.page, photo)
        assert left == [-1]
        watched.complaints.clear()

    def test_a_damaged_answer_is_not_shown(self, watched: Watched, photo: Path):
        def damage(route: Route) -> None:
            answer = route.fetch()
            body = bytearray(answer.body())
            body[len(body) // 2] ^= 1
            route.fulfill(response=answer, body=bytes(body))

        watched.page.route("**/encode?*", damage)
        self.refused(watched, photo, "damaged on its way")
        expect(watched.page.locator("#result")).to_be_hidden()

    def test_an_api_key_is_sent(self, watched: Watched, photo: Path):
        keys: list[str | None] = []

        def note(route: Route) -> None:
            keys.append(route.request.headers.get("authorization"))
            route.continue_()

        watched.page.route("**/encode?*", note)
        watched.page.click("summary:has-text('API key')")
        watched.page.fill("#key", "secret")
        upload(watched.page, photo)
        assert keys == ["Bearer secret"]


class TestViewer:
    def test_levels_appear_coarse_to_fine(self, watched: Watched, server: str, tmp_path: Path, petals: Path):
        page = watched.page
        path = tmp_path / "petals.bij"
        with Client(server) as client:
            stream = client.encode(petals, quality=50, to=path)
            info = client.inspect(stream.data)
        page.set_input_files("#file", path)
        expect(page.locator("#view-status")).to_have_text("petals.bij is shown at full size.")
        scales = [url.rpartition("scale=")[2] for url in watched.requests if "/decode" in url]
        assert scales == ["16", "8", "4", "2", "1"]
        rows = page.locator("#levels tbody tr")
        assert rows.locator("td:first-child").all_inner_texts() == ["1/16", "1/8", "1/4", "1/2", "1/1"]
        shares = [float(text.rstrip(" %")) for text in rows.locator("td:last-child").all_inner_texts()]
        assert shares == sorted(shares)
        assert shares[-1] == 100
        expect(page.locator("#facts")).to_contain_text(f"192 × 128, quality 50, {info.total_bytes:,} bytes")
        page.focus("#level")
        page.keyboard.press("Home")
        expect(page.locator("#level-value")).to_have_text("1/16, 12 × 8 pixels")
        with page.expect_download() as picture:
            page.click("#view-png")
        with Image.open(io.BytesIO(picture.value.path().read_bytes())) as image:
            assert image.size == (192, 128)

    def test_from_the_result_and_for_a_small_picture(self, page: Page, photo: Path):
        upload(page, photo)
        page.click("#view-it")
        expect(page.locator("#view-status")).to_have_text("photo.bij is shown at full size.")
        sizes = page.locator("#levels tbody td:nth-child(2)").all_inner_texts()
        assert len(set(sizes)) == len(sizes)
        assert sizes[-1] == "61 × 45"


class TestLab:
    def test_generations_beside_the_browser_s_codecs(self, page: Page, petals: Path):
        upload(page, petals)
        page.fill("#generations", "4")
        page.click("#lab-run")
        expect(page.locator("#lab-status")).to_have_text("4 generations done.")
        assert page.locator("#plot polyline").count() == 3
        assert page.locator("#plot circle").count() == 12
        cells = page.locator("#lab-table tbody td").all_text_contents()
        values = np.array([float(text) for text in cells]).reshape(4, 3)
        assert (values > 20).all()
        assert values[0, 0] - values[-1, 0] < 0.2  # what the codec is made for
        page.focus("#lab-generation")
        page.keyboard.press("Home")
        expect(page.locator("#lab-generation-value")).to_have_text("1")
        expect(page.locator("#lab-pictures figcaption").first).to_contain_text(f"Bijou: {values[0, 0]:.2f} dB")

    def test_moved_pictures_lose_more(self, page: Page, petals: Path):
        upload(page, petals)
        page.fill("#generations", "3")
        page.check("#lab-shift")
        page.click("#lab-run")
        expect(page.locator("#lab-status")).to_have_text("3 generations done.")
        values = [float(t) for t in page.locator("#lab-table tbody td:nth-child(2)").all_text_contents()]
        assert values[0] > values[1] > values[2] > 20

    def test_without_a_picture_and_stopped(self, page: Page, petals: Path):
        page.click("#lab-run")
        expect(page.locator("#lab-status")).to_contain_text("Choose a picture first")
        upload(page, petals)
        page.fill("#generations", "50")
        page.click("#lab-run")
        expect(page.locator("#lab-status")).to_contain_text("Generation 2 of 50")
        page.click("#lab-stop")
        expect(page.locator("#lab-status")).to_have_text("Stopped.")
        expect(page.locator("#lab-run")).to_be_enabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_accessible_in_every_dress(watched: Watched, scheme: str, width: int, petals: Path):
    page = watched.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    assert Axe().run(page).violations_count == 0
    upload(page, petals)
    with work(page):
        page.check("input[value=lossless]")
    page.click("#view-it")
    expect(page.locator("#view-status")).to_contain_text("full size")
    page.fill("#generations", "2")
    page.click("#lab-run")
    expect(page.locator("#lab-status")).to_have_text("2 generations done.")
    for summary in page.locator("summary").all():
        summary.click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
