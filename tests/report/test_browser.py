"""The page in a browser, with the 3D viewer and without: what it shows, and that it asks nobody for anything."""

import shutil
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from app.report import viewer, write
from app.structure.write import write_pdb
from tests.report import made_run


class Opened:
    """A page, with all that it complained of and asked for."""

    def __init__(self, browser, path, **options):
        self.complaints, self.requests = [], []
        self.page = browser.new_page(**options)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def shown(self) -> np.ndarray:
        """[N, 3] CA coordinates of what is drawn at the moment, angstrom."""
        return np.array(self.page.evaluate("trunkline.shown()"))

    def cards(self) -> list[str]:
        return self.page.locator("#gallery .card b").all_text_contents()

    def inked(self) -> float:
        """Share of the picture that something is drawn on."""
        picture = Image.open(BytesIO(self.page.locator("#picture").screenshot())).convert("L")
        grey = np.asarray(picture).astype(int)
        return float((np.abs(grey - grey[0, 0]) > 20).mean())

    def title(self) -> str:
        return self.page.locator("#design-title").text_content()


def written(folder, script=None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewer, "cached", lambda: folder / "nowhere")
        return write(folder, script)


@pytest.fixture(scope="module", params=["solid", "drawn"])
def opened(request, browser, tmp_path_factory):
    folder = made_run.run(tmp_path_factory.mktemp("run"))
    script = None
    if request.param == "solid":
        package = request.getfixturevalue("viewer_package")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(viewer, "cached", lambda: folder.parent / "cache" / "3Dmol-min.js")
            script = viewer.install(package)
    path = written(folder, script)
    shutil.rmtree(folder / "structures")  # what the page shows is in the page
    one = Opened(browser, path, viewport={"width": 1400, "height": 1000})
    one.solid, one.path = request.param == "solid", path
    yield one
    assert one.complaints == []
    assert one.requests == [path.as_uri()]
    one.page.close()


def test_it_is_drawn_by_what_it_carries(opened):
    assert opened.page.evaluate("Boolean(window.$3Dmol)") == opened.solid
    assert opened.page.locator("#picture canvas").count() >= 1
    assert ("3Dmol.js" in opened.page.locator("footer").text_content()) == opened.solid


def test_every_design_can_be_opened(opened):
    page = opened.page
    for name in (*made_run.DESIGNS, made_run.FAILED):
        page.locator(f'#gallery .card[data-id="{name}"]').click()
        assert opened.title() == name
        expected = sum(made_run.DESIGNS.get(name, []))
        assert len(opened.shown()) == expected
        if expected:
            true = made_run.design(made_run.DESIGNS[name], made_run.STRAND if name == "len24_0" else made_run.HELIX)
            assert np.abs(opened.shown() - true[:, 1]).max() < 0.01  # a coordinate's step, and three digits of a PDB
            assert page.locator("#sequence rect").count() == expected
    assert "out of memory" in page.locator("#design-flags").text_content()
    assert page.locator("#picture p").count() == 1


def test_the_slider_changes_the_coordinates_shown(opened):
    page = opened.page
    assert page.evaluate("trunkline.open('len40_0')")
    end, letters = opened.shown(), page.locator("#sequence text").first.text_content()
    slider = page.locator("#slider")
    assert slider.input_value() == slider.get_attribute("max") == str(made_run.STEPS)
    seen = []
    for place in range(made_run.STEPS + 1):
        slider.fill(str(place))
        seen.append(np.abs(opened.shown() - end).max())
        assert page.locator("#frame").text_content() == f"{place} of {made_run.STEPS}"
    assert seen[0] > 5 and seen[-1] == 0
    assert all(one > other for one, other in pairwise(seen))
    slider.fill("0")
    assert set(page.locator("#sequence text:not(.place)").all_text_contents()) == {"X"} != {letters}
    noise = opened.shown()
    assert opened.inked() > 0.02  # in noise residues are far apart, and joined all the same
    page.locator("#path").select_option("clean")
    assert np.abs(opened.shown() - noise).max() > 1  # halfway there from the first call on
    slider.press("End")
    assert np.array_equal(opened.shown(), end)
    page.locator("#path").select_option("path")


def test_it_plays(opened):
    page = opened.page
    page.evaluate("trunkline.open('len24_0')")
    page.evaluate("""() => {
        window.seen = [];
        const frame = document.getElementById("frame");
        new MutationObserver(() => seen.push(frame.textContent)).observe(frame, { childList: true });
    }""")
    page.locator("#play").click()
    expect(page.locator("#play")).to_have_text("▶")
    assert page.evaluate("seen") == [f"{place} of {made_run.STEPS}" for place in range(1, made_run.STEPS + 1)]
    assert page.locator("#slider").input_value() == str(made_run.STEPS)


def test_sorting_sorts_and_what_was_not_measured_comes_last(opened):
    page = opened.page
    first, second, third, failed = (*made_run.DESIGNS, made_run.FAILED)
    assert opened.cards() == [first, second, third, failed]
    labels = page.locator("#sort option").all_text_contents()
    assert labels[:4] == ["order of the run", "name", "length", "flags"]
    assert labels[4:] == ["ca ca valid", "sc rmsd", "designable", "certainty"]
    page.locator("#sort").select_option(label="ca ca valid")
    assert opened.cards() == [second, first, third, failed]
    page.locator("#order").click()
    assert opened.cards() == [third, first, second, failed]
    page.locator("#sort").select_option(label="sc rmsd")  # nothing to sort by
    assert opened.cards() == [first, second, third, failed]
    page.locator("#sort").select_option(label="designable")  # 10 is more than 1.25: numbers, not words
    assert opened.cards() == [third, first, second, failed]
    page.locator("#order").click()
    page.locator("#sort").select_option(label="order of the run")


def test_filtering_filters(opened):
    page = opened.page
    page.locator("#filter").fill("len2")
    assert opened.cards() == ["len24_0", "len20+12_0"]
    assert page.locator("#count").text_content() == "2 of 4"
    page.locator("#filter").fill("ABOVE 40")
    assert opened.cards() == ["len20+12_0"]
    page.locator("#filter").fill("")
    assert len(opened.cards()) == 4


def test_keys_do_what_the_pointer_does(opened):
    page = opened.page
    page.locator("#gallery .card").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert opened.title() == "len24_0"
    page.locator("#sequence").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#residue").text_content().startswith("A 2 ")
    assert "certainty 23" in page.locator("#residue").text_content()
    page.locator("#picture").focus()
    before = page.locator("#picture").screenshot()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#picture").screenshot() != before


def test_colours_say_what_makes_sense_of_the_design(opened):
    page = opened.page
    page.evaluate("trunkline.open('len20+12_0')")
    options = page.locator("#colour option").all_text_contents()
    assert options == ["along the chain", "certainty", "secondary structure", "chains"]
    for option in options:
        page.locator("#colour").select_option(label=option)
    page.evaluate("trunkline.open('len40_0')")
    assert "chains" not in page.locator("#colour option").all_text_contents()


def test_a_dot_of_a_plot_opens_its_design(opened):
    opened.page.locator('.plot [data-design="len24_0"]').first.dispatch_event("click")
    assert opened.title() == "len24_0"


def test_what_files_say_is_text(opened):
    assert opened.page.evaluate("window.stolen") is None
    opened.page.evaluate("trunkline.open('len20+12_0')")
    assert made_run.HOSTILE in opened.page.locator("#design-flags").text_content()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return written(made_run.run(tmp_path_factory.mktemp("drawn")))


def test_an_address_names_a_design(browser, drawn):
    again = browser.new_page()
    again.goto(f"{drawn.as_uri()}#len24_0")
    assert again.locator("#design-title").text_content() == "len24_0"
    again.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_telephone(browser, drawn, scheme):
    small = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    small.goto(drawn.as_uri())
    assert small.evaluate("document.documentElement.scrollWidth") <= 390
    small.close()


def test_a_script_that_a_file_brings_along_would_not_run(browser, drawn, tmp_path):
    """Should escaping fail, the page's policy holds: only scripts whose hashes it names."""
    text = drawn.read_text().replace("</body>", "<script>window.stolen = 1</script></body>")
    (tmp_path / "report.html").write_text(text)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert page.evaluate("window.stolen") is None
    refused = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.name)")
    assert refused == "TypeError"
    page.close()


def test_a_name_is_a_name(browser, tmp_path):
    name = "<img src=x onerror=stolen=1>&\"'"
    write_pdb(tmp_path / f"{name}.pdb", made_run.design([9]), np.zeros(9, int), np.ones(9, int), np.arange(1, 10))
    one = Opened(browser, written(tmp_path))
    assert one.title() == name and one.cards() == [name] and len(one.shown()) == 9
    one.page.locator(".plot [data-design]").first.dispatch_event("click")
    assert one.page.evaluate("window.stolen") is None
    assert one.complaints == [] and len(one.requests) == 1
    one.page.close()
