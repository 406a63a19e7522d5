"""Make the pictures of the page on the media library with the plugin itself::

    python scripts/pictures.py

The script draws a landscape, and uploads it to a media library in memory, as an editor would.
"""

import sys
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.library import MediaLibrary, settings  # noqa: E402
from tests.support.site import Site  # noqa: E402

SUN = {"name": "sun", "trim": {"left": 900, "top": 120, "width": 400, "height": 300}}
# The pictures in docs/, and their paths on the server.
PICTURES = {
    "320x0": "image/320x0/{id}.jpg",
    "120x120": "image/120x120/{id}.jpg",
    "0x90": "image/0x90/{id}.jpg",
    "320x80": "image/320x80/{id}.jpg",
    "0x0": "image/640x0/{id}.jpg",
    "120x0-sun": "image/120x0/{id}/lake.jpg/variant/sun",
}
MEMORY = {
    f"kinto.{kind}_backend": f"kinto.core.{kind}.memory"
    for kind in ("storage", "permission", "cache")
}


def landscape(width: int = 1600, height: int = 1200) -> Image.Image:
    """Draw a lake below mountains in the evening.

    :param width: pixels, as ``height``.
    """
    sky = Image.linear_gradient("L").resize((width, height))
    image = Image.merge(
        "RGB",
        (
            sky.point(lambda value: 70 + value * 180 // 255),
            sky.point(lambda value: 90 + value * 90 // 255),
            sky.point(lambda value: 150 - value * 40 // 255),
        ),
    )
    draw = ImageDraw.Draw(image)
    draw.ellipse((1030, 200, 1170, 340), fill=(255, 240, 200))
    for far, colour in ((0, (110, 90, 120)), (1, (70, 60, 95)), (2, (40, 40, 65))):
        base, points = 640 + 60 * far, [(0, 800)]
        for step in range(0, width + 1, 40):
            rise = (step * (7 + far) * 31 % 97) + (step * (3 + far) * 17 % 61)
            points.append((step, base - rise * (3 - far) // 2))
        draw.polygon([*points, (width, 800)], fill=colour)
    water = image.crop((0, 400, width, 800)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    image.paste(water.filter(ImageFilter.GaussianBlur(6)), (0, 800))
    grain = Image.effect_noise((width, height), 12).convert("RGB")
    return ImageChops.add(image, grain, 1, -128)


def main() -> None:
    """Write all pictures to ``docs/``."""
    file = BytesIO()
    landscape().save(file, "JPEG", quality=90)
    memory = {**MEMORY, "kinto.attachment.storage": "memory"}
    shelf = MediaLibrary(Site(**memory, **settings("site")))
    data = shelf.add(file.getvalue(), "lake.jpg", variants=[SUN], alt="A lake below mountains")
    for name, path in PICTURES.items():
        (ROOT / "docs" / f"{name}.jpg").write_bytes(shelf.get(path.format(**data)).body)


if __name__ == "__main__":
    main()
