"""Opens pages in headless Chromium, narrow and wide, light and dark: `make browser-test`, or with pages of your own:

    python tests/browser.py result/*/report.html

Fails on a message on the console, a request to another address, an image that does not decode, or an element that is
wider than the window. Screenshots are in result/browser-test/ afterwards: look at them."""

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / "result" / "browser-test"
WIDTHS, SCHEMES = (400, 1280), ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RUN = shlex.split(
    "--dataset digits --network ConvNet --disable-dp --epochs 8 --lr 0.02 --train-batch-size 64 --n-train 200 "
    "--n-shadows 8 --no-augment --quiet"
)
EXCESS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
NOT_DECODED = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.alt)"
# Elements that extend beyond the window, outside a box that scrolls: unreadable on a phone.
CUT_OFF = """[...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || box.left < -1) && !e.closest('.scroll');
}).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))"""


def make_pages(folder: Path) -> list[Path]:
    """The pages of two runs of digits, the first with two targets, and of their comparison."""
    flags = [*RUN, "--model-dir", str(folder / "model"), "--result-dir", str(folder / "result")]
    for argv in ([*flags, "-r", "2"], [*flags, "--exp-idx", "1", "--epochs", "3"]):
        for script in (["train_model.py"], ["attack_lira.py", "--curve"]):
            subprocess.run([sys.executable, ROOT / script[0], *argv, *script[1:]], cwd=folder, check=True)
    names = sorted(path.parent.name for path in (folder / "result").glob("*/report.html"))
    command = [sys.executable, ROOT / "attack_lira.py", *flags, "--compare", *names]
    subprocess.run(command, cwd=folder, check=True)
    return sorted((folder / "result").glob("*/report.html"))


def check(browser, path: Path, name: str) -> list[str]:
    """The problems of a page in each of the four views; saves a screenshot of each, and the printed page."""
    problems = []
    for width in WIDTHS:
        for scheme in SCHEMES:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            problems += [f"{name} at {width} pixels, {scheme}: {line}" for line in _open(page, path)]
            page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{scheme}.png", full_page=True)
            if width == max(WIDTHS) and scheme == "light":
                page.pdf(path=SCREENSHOTS / f"{name}.pdf", format="A4", print_background=True)
            context.close()
    return problems


def _open(page, path: Path) -> list[str]:
    problems = []
    page.on("console", lambda message: problems.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: _is_local(request.url) or problems.append(f"requests {request.url}"))
    page.goto(path.resolve().as_uri())
    page.wait_for_load_state("load")
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    if (excess := page.evaluate(EXCESS)) > 0:
        problems.append(f"{excess} pixels wider than the window")
    problems += [f"cut off: {element}" for element in page.evaluate(CUT_OFF)]
    problems += [f"image does not decode: {alt}" for alt in page.evaluate(NOT_DECODED)]
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = false)")
    return problems


def _is_local(url: str) -> bool:
    return url.startswith(("file:", "data:"))


def main(paths: list[str]) -> int:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        pages = [Path(path) for path in paths] or make_pages(Path(folder))
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        problems = [line for page in pages for line in check(browser, page, page.parent.name)]
        browser.close()
    print("\n".join(problems) or f"{len(pages)} pages, {len(WIDTHS) * len(SCHEMES)} views each: no problems")
    print(f"screenshots: {SCREENSHOTS}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
