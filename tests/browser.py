"""Opens pages in headless Chromium, narrow and wide, light and dark: `make browser-test`, or with pages of your own:

    python tests/browser.py result/*/report.html

Fails on an error on the console, a request to anywhere, a image that does not decode, or anything cut off at the
side. Screenshots lie in result/browser-test/ afterwards: look at them."""

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
SHOTS = ROOT / "result" / "browser-test"
WIDTHS, SCHEMES = (400, 1280), ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RUN = shlex.split(
    "--dataset digits --network ConvNet --disable-dp --epochs 8 --lr 0.02 --train-batch-size 64 --n-train 200 "
    "--n-shadows 8 --no-augment --quiet"
)
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
BROKEN = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.alt)"
# Whatever reaches beyond the window without a box of its own that scrolls cannot be read on a phone.
CUT = """[...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || box.left < -1) && !e.closest('.scroll');
}).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))"""


def make_pages(folder: Path) -> list[Path]:
    """A run of digits with two targets, one with augmentation, and both side by side."""
    flags = [*RUN, "--model-dir", str(folder / "model"), "--result-dir", str(folder / "result")]
    for own in ([*flags, "-r", "2"], [*flags, "--exp-idx", "1", "--epochs", "3"]):
        for script in (["train_model.py"], ["attack_lira.py", "--curve"]):
            subprocess.run([sys.executable, ROOT / script[0], *own, *script[1:]], cwd=folder, check=True)
    names = sorted(path.parent.name for path in (folder / "result").glob("*/report.html"))
    command = [sys.executable, ROOT / "attack_lira.py", *flags, "--compare", *names]
    subprocess.run(command, cwd=folder, check=True)
    return sorted((folder / "result").glob("*/report.html"))


def look(browser, path: Path, name: str) -> list[str]:
    """What is wrong with a page in each of the four views; saves a screenshot of each, and the printed page."""
    wrong = []
    for width in WIDTHS:
        for scheme in SCHEMES:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            said = _opened(page, path)
            page.screenshot(path=SHOTS / f"{name}-{width}-{scheme}.png", full_page=True)
            if width == max(WIDTHS) and scheme == "light":
                page.pdf(path=SHOTS / f"{name}.pdf", format="A4", print_background=True)
            context.close()
            wrong += [f"{name} at {width} pixels, {scheme}: {line}" for line in said]
    return wrong


def _opened(page, path: Path) -> list[str]:
    wrong = []
    page.on("console", lambda said: wrong.append(f"console {said.type}: {said.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: _local(asked.url) or wrong.append(f"asks {asked.url}"))
    page.goto(path.resolve().as_uri())
    page.wait_for_load_state("load")
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    if (excess := page.evaluate(WIDE)) > 0:
        wrong.append(f"{excess} pixels wider than the window")
    wrong += [f"cut off: {element}" for element in page.evaluate(CUT)]
    wrong += [f"image does not decode: {alt}" for alt in page.evaluate(BROKEN)]
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = false)")
    return wrong


def _local(url: str) -> bool:
    return url.startswith(("file:", "data:"))


def main(paths: list[str]) -> int:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    SHOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        pages = [Path(path) for path in paths] or make_pages(Path(folder))
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        wrong = [line for page in pages for line in look(browser, page, page.parent.name)]
        browser.close()
    print("\n".join(wrong) or f"{len(pages)} pages, {len(WIDTHS) * len(SCHEMES)} views each: nothing is wrong")
    print(f"screenshots: {SHOTS}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
