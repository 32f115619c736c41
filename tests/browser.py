"""Opens pages in headless Chromium, narrow and wide, light and dark: `make browser-test`, or with pages of your own:

    python tests/browser.py result/*/report.html

Fails on a message on the console, a request to another address, an image that does not decode, an element that is
wider than the window, a table that is cut, or texts and images that overlap. Screenshots are in result/browser-test/
afterwards: look at them."""

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_digits

ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / "result" / "browser-test"
WIDTHS, SCHEMES = (400, 1280), ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RUN = shlex.split("--network ConvNet --train-batch-size 64 --n-train 100 --n-shadows 8 --no-augment --quiet")
PLAIN, LEAKING = shlex.split("--disable-dp --lr 0.02"), ["--epochs", "8"]
EXCESS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
NOT_DECODED = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.alt)"
# Elements that extend beyond the window, outside a box that scrolls: unreadable on a phone.
CUT_OFF = """[...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || box.left < -1) && !e.closest('.scroll');
}).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))"""


# Texts, line by line, and images whose boxes overlap. A table's head that is hidden on narrow pages is left out.
OVERLAPS = """(() => {
    const boxes = [];
    const add = (rect, name) => rect.width > 1 && rect.height > 1 && boxes.push({rect, name});
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode, head = node.parentElement.closest('thead');
        if (!node.textContent.trim() || (head && head.getBoundingClientRect().width <= 1)) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        for (const rect of range.getClientRects()) add(rect, node.textContent.trim().slice(0, 40));
    }
    for (const image of document.images) add(image.getBoundingClientRect(), image.alt.slice(0, 40));
    boxes.sort((a, b) => a.rect.top - b.rect.top);
    const found = [];
    boxes.forEach(({rect, name}, first) => {
        for (let next = first + 1; next < boxes.length && boxes[next].rect.top < rect.bottom - 4; next++) {
            const other = boxes[next].rect;
            const shared = Math.min(rect.right, other.right) - Math.max(rect.left, other.left);
            if (shared > 2) found.push(name + ' / ' + boxes[next].name);
        }
    });
    return found;
})()"""
CUT_TABLES = """[...document.querySelectorAll('.scroll')]
    .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
    .map(e => e.getAttribute('aria-label') + ', ' + (e.scrollWidth - e.clientWidth) + ' pixels')"""


def make_pages(folder: Path) -> list[Path]:
    """The pages of a run of 100 classes and two targets, of a private run, of two more, of scores from elsewhere, of an
    own model, and of a comparison of the four runs."""
    hundred = _hundred_classes(folder)
    runs = {
        "hundred": ["--dataset", hundred, *PLAIN, *LEAKING, "-r", "2"],
        "private": ["--dataset", "digits", "--epochs", "2"],
        "plain": ["--dataset", "digits", *PLAIN, *LEAKING],
        "short": ["--dataset", "digits", *PLAIN, "--epochs", "2", "--exp-idx", "1"],
    }
    for name, flags in runs.items():
        _script(folder, "train_model.py", *flags)
        _script(folder, "attack_lira.py", *flags, *(["--curve", "--leave-one-out"] if name == "hundred" else []))
    names = sorted(path.parent.name for path in (folder / "result").glob("*/report.html"))
    with np.load(next((folder / "result").glob("hundred*/scores.npz"))) as scores:
        np.savez(folder / "theirs.npz", phi=scores["phi"], member=scores["member"], label=scores["label"])
    _script(folder, "attack_lira.py", "--scores", "theirs.npz")
    run = next((folder / "result").glob("digits*lr0.02*exp0"))
    with np.load(run / "scores.npz") as scores:
        member = torch.from_numpy(scores["member"][0])
    weights = torch.load(folder / "model" / run.name / "target_00.pt", weights_only=True)["weights"]
    torch.save({"state_dict": weights, "member": member}, folder / "mine.pt")
    _script(folder, "attack_lira.py", *runs["plain"], "--target-weights", "mine.pt")
    _script(folder, "attack_lira.py", "--compare", *names)
    return sorted((folder / "result").glob("*/report.html"))


def _hundred_classes(folder: Path) -> str:
    """Digits whose 100 classes are a digit and a number."""
    x, digit = load_digits(return_X_y=True)
    images = np.kron(x.reshape(-1, 8, 8) * 15, np.ones((2, 2))).astype(np.uint8)
    label = 10 * digit + np.arange(len(digit)) % 10
    words = ["nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    names = np.array([f"{tens}ty_{units}_written_by_hand" for tens in words for units in words])
    path = folder / "hundred.npz"
    np.savez(
        path, x_train=images[600:], y_train=label[600:], x_test=images[:600], y_test=label[:600], class_names=names
    )
    return str(path)


def _script(folder: Path, script: str, *flags: str) -> None:
    folders = ["--model-dir", str(folder / "model"), "--result-dir", str(folder / "result")]
    general = [] if {"--scores", "--compare"} & set(flags) else RUN
    quiet = ["--quiet"] if not general else []
    subprocess.run([sys.executable, ROOT / script, *general, *quiet, *flags, *folders], cwd=folder, check=True)


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
    problems += [f"table is cut: {table}" for table in page.evaluate(CUT_TABLES)]
    problems += [f"overlap: {pair}" for pair in page.evaluate(OVERLAPS)]
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
