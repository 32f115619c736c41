"""Reads a folder of images, train/<class>/* and test/<class>/*, and caches the decoded images."""

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image, ImageOps
from tqdm import tqdm

from lira.atomic import remove_stale, write_atomically
from lira.data.images import ARRAYS, Images, input_error, make_images
from lira.errors import InputError, one_line, printable, warn

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
VALIDATION = ("val", "valid", "validation")  # what test/ is called elsewhere
MEMBERS = "members.txt"
CACHE_FORMAT = 3  # to be increased when the same files would be decoded to different pixels

# Pillow's image mode -> the mode it is decoded to; an alpha channel is dropped. 16-bit and float modes are missing
# on purpose: Pillow clips them to 8 bits, and the user should choose how to scale them.
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
DECODED_MODE = {"1": "L", "L": "L", "LA": "L"} | dict.fromkeys(_COLOUR, "RGB")


class Listing(NamedTuple):
    """Path and label of every image in a folder, training set first.

    state: digest of the paths, sizes, inodes and times of modification and change (a program may reset the former, the
    latter is the system's); while it is equal, a cache is up to date."""

    files: list[str]
    labels: np.ndarray  # int64 (N,)
    n_train: int
    class_names: list[str]
    state: str


def read_folder(path: Path, cache_root: Path, *, progress: bool = True) -> Images:
    """Images of one size from train/<class>/* and test/<class>/*; classes sorted by name, files in natural order.

    Grey if all of them are, RGB otherwise; turned as their EXIF orientation says; of an animation the first frame.
    The decoded images are cached in <cache_root>/cache/ and used while the folder is unchanged; if the cache cannot be
    read or written, a warning is logged and the images are decoded.
    Hidden files and files without an image suffix are ignored. members.txt, beside train/ and test/, may name the test
    images that the user's own model was trained on, one path like test/cat/0.png per line. progress: a bar on stderr.
    Raises InputError that names the wrong folder or file."""
    try:
        listing = _list_folder(path)
    except OSError as error:  # no permission, a broken link
        raise input_error(path, f"cannot be listed ({one_line(error)}): make it readable") from error
    cache = _cache_file(path, cache_root)
    images = _read_cache(cache, path, listing)
    if images is None:
        arrays = _decode_all(path, listing, progress)
        images = make_images(path, *arrays, class_names=listing.class_names)
        _write_cache(cache, arrays, listing, images.fingerprint)
    return replace(images, member=_read_members(path, listing))


def _read_members(path: Path, listing: Listing) -> np.ndarray | None:
    """bool (1, N), the test images that members.txt names; None where there is no such file. Raises InputError."""
    file = path / MEMBERS
    if not file.is_file():
        return None
    try:
        named = {Path(line.strip()) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise input_error(file, f"cannot be read ({one_line(error)}): save it as UTF-8 text") from error
    test = [Path(name).relative_to(path) for name in listing.files[listing.n_train :]]
    if unknown := sorted(map(str, named.difference(test))):
        others = f" ({len(unknown)} of {len(named)} lines are not)" if len(unknown) > 1 else ""
        raise input_error(file, f"{unknown[0]} is none of the test images{others}: give lines like {test[0]}")
    return np.array([[name in named for name in test]])


def _list_folder(path: Path) -> Listing:
    """Listing of a folder. The order depends on names alone, never on the file system."""
    if not path.is_dir():
        raise input_error(path, "no such folder: give one that holds train/<class>/* and test/<class>/*")
    train, test = _list_split(path, "train"), _list_split(path, "test")
    if train.keys() != test.keys():
        in_one_split = {"train": train.keys() - test.keys(), "test": test.keys() - train.keys()}
        differences = [f"only in {k}/: {', '.join(sorted(names)[:5])}" for k, names in in_one_split.items() if names]
        problem = f"classes differ, {'; '.join(differences)}"
        raise input_error(path, f"{problem}; give train/ and test/ the same class folders")
    files = [
        (split, label, entry)
        for split, classes in (("train", train), ("test", test))
        for label, entries in enumerate(classes.values())
        for entry in entries
    ]
    # With Pillow's version: another release may decode a JPEG file to slightly different pixels.
    state: list[Any] = [CACHE_FORMAT, PIL.__version__, list(train)]
    for split, label, entry in files:
        stat = entry.stat()
        state.append((split, label, entry.name, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns))
    return Listing(
        files=[entry.path for _, _, entry in files],
        labels=np.array([label for _, label, _ in files], dtype=np.int64),
        n_train=sum(map(len, train.values())),
        class_names=list(train),
        state=hashlib.sha256(json.dumps(state).encode()).hexdigest(),
    )


def _list_split(path: Path, split: str) -> dict[str, list[os.DirEntry[str]]]:
    """{class name: its images} of train/ or test/, classes sorted by name."""
    folder = path / split
    if not folder.is_dir():
        other = next((name for name in VALIDATION if split == "test" and (path / name).is_dir()), None)
        remedy = f"rename {other}/ to test/" if other else "put the images into train/<class>/ and test/<class>/"
        raise input_error(folder, f"no such folder: {remedy}")
    entries = _visible(folder)
    stray = [entry.name for entry in entries if entry.is_file() and _is_image(entry)]
    if stray:
        raise input_error(folder / stray[0], f"lies outside a class: move it to {split}/<class>/")
    classes = sorted((entry for entry in entries if entry.is_dir()), key=lambda entry: entry.name)
    if not classes:
        raise input_error(folder, f"no class folder in it: put the images into {split}/<class>/")
    return {entry.name: _list_class(Path(entry.path)) for entry in classes}


def _list_class(folder: Path) -> list[os.DirEntry[str]]:
    entries = _visible(folder)
    nested = [entry.name for entry in entries if entry.is_dir()]
    if nested:
        raise input_error(folder / nested[0], "a folder inside a class: put its images into the class itself")
    images = [entry for entry in entries if _is_image(entry)]
    if special := [entry.name for entry in images if not entry.is_file()]:  # of a pipe, reading would wait for ever
        raise input_error(folder / special[0], "a broken link, or no regular file: delete it")
    if not images:
        problem = "a class without images: add some to it, or delete it from train/ and test/"
        raise input_error(folder, f"{problem} (known suffixes: {' '.join(SUFFIXES)})")
    return images


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=_natural_order)


def _natural_order(entry: os.DirEntry[str]) -> tuple[list[int | str], str]:
    """2.png before 10.png. Text and numbers alternate, so equal types are compared; the name breaks ties."""
    parts = re.split(r"(\d+)", entry.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], entry.name


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(SUFFIXES)


def _decode_all(path: Path, listing: Listing, progress: bool) -> tuple[np.ndarray, ...]:
    """x_train, y_train, x_test, y_test as make_images takes them; x_*: (N, H, W, C).

    In one thread: on files of 2 KB, 2 to 8 threads took 1.5 times as long."""
    pixels: Any = None
    files = tqdm(
        listing.files, desc=printable(f"reading {path}"), unit=" images", disable=not progress or None, leave=False
    )
    for index, file in enumerate(files):
        image = _decode(file)  # (H, W, C)
        if pixels is None:
            pixels = np.empty((len(listing.files), *image.shape), dtype=np.uint8)
        if image.shape[:2] != pixels.shape[1:3]:
            (h, w), (first_h, first_w) = image.shape[:2], pixels.shape[1:3]
            first = f"{listing.files[0]} is {first_w}x{first_h}"
            resize = f"ImageOps.fit(Image.open(file).convert('RGB'), ({first_w}, {first_h})).save(file)"
            raise input_error(file, f"{w}x{h} pixels, but {first}: bring all images to one size, like {resize}")
        if image.shape[2] > pixels.shape[3]:  # the first RGB image: the grey ones before it become RGB
            pixels = np.repeat(pixels, 3, axis=3)
        pixels[index] = image  # a grey image after an RGB one: (H, W, 1) is broadcast to three equal channels
    n = listing.n_train
    return pixels[:n], listing.labels[:n], pixels[n:], listing.labels[n:]


def _decode(file: str) -> np.ndarray:
    """uint8 (H, W, 1) if the file is grey, (H, W, 3) otherwise."""
    try:
        with Image.open(file) as image:
            image.verify()  # the checksums of a PNG, which decoding does not look at
        with Image.open(file) as image:
            mode = image.mode
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.asarray(image.convert(DECODED_MODE[mode])) if mode in DECODED_MODE else None
    except Exception as error:  # each of Pillow's format readers raises its own errors for a corrupted file
        raise input_error(file, f"cannot be decoded ({one_line(error)}): replace or delete it") from error
    if pixels is None:
        raise input_error(file, f"has mode {mode}: save it with 8 bits per channel, grey or RGB")
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _cache_file(path: Path, cache_root: Path) -> Path:
    """One file per folder, by its absolute path."""
    folder = path.resolve()
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.name)[:60]
    return cache_root / "cache" / f"{name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}.npz"


def _read_cache(cache: Path, path: Path, listing: Listing) -> Images | None:
    """None if the cache is missing, out of date or corrupted."""
    if not cache.exists():
        return None
    try:
        with np.load(cache, allow_pickle=False) as archive:
            if archive["state"] != listing.state:
                return None
            images = make_images(path, *(archive[key] for key in ARRAYS), class_names=listing.class_names)
            if archive["fingerprint"] == images.fingerprint:
                return images
            reason = "its checksum does not match"
    except Exception as error:  # zipfile, zlib and NumPy each raise their own errors for a corrupted file
        reason = one_line(error)
    warn(f"{cache} is corrupted ({reason}): decoding the images again")
    return None


def _write_cache(cache: Path, arrays: tuple[np.ndarray, ...], listing: Listing, fingerprint: str) -> None:
    content: dict[str, Any] = dict(zip(ARRAYS, arrays, strict=True), state=listing.state, fingerprint=fingerprint)
    try:
        write_atomically(cache, lambda file: np.savez(file, **content))
        remove_stale(cache.parent)
    except InputError as error:
        warn(f"{error}; the images will be decoded again next time")
