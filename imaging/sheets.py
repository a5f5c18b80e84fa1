"""Contact sheets: several labelled pictures in one image."""

from PIL import Image, ImageDraw, ImageFont

from imaging import images


def centre(pixels, size):
    """Return the central `size` x `size` crop of an array [..., H, W]; all of a shorter side."""
    y, x = (max(length - size, 0) // 2 for length in pixels.shape[-2:])
    return pixels[..., y : y + size, x : x + size]


def labelled_sheet(rows, font_size=18):
    """Return a Pillow image of rows of (label, uint8 [C, H, W]), with each label above its picture."""
    strip, gap = 30, 4  # Pixels: height of the labels, space between pictures.
    height, width = (max(pixels.shape[axis] for row in rows for _, pixels in row) for axis in (1, 2))
    size = [gap + max(map(len, rows)) * (width + gap), len(rows) * (strip + height) + gap]
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(font_size)
    for y, row in enumerate(rows):
        for x, (label, pixels) in enumerate(row):
            left, top = gap + x * (width + gap), y * (strip + height)
            draw.text((left + width / 2, top + strip / 2), label, fill="black", font=font, anchor="mm")
            sheet.paste(images.to_pillow(pixels), (left, top + strip))
    return sheet
