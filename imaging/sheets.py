"""Sheets of pictures: several images in one, with labels."""

from PIL import Image, ImageDraw, ImageFont


def centre(pixels, size):
    """The central square of an array [..., H, W], `size` wide and high, or as much of it as there is."""
    y, x = (max(length - size, 0) // 2 for length in pixels.shape[-2:])
    return pixels[..., y : y + size, x : x + size]


def labelled_sheet(rows, font_size=18):
    """Rows of (label, uint8 [3, H, W]) -> a Pillow image of them all, each label above its picture."""
    strip, gap = 30, 4  # Pixels: the height of the labels above a row, the space around the pictures.
    height, width = (max(pixels.shape[axis] for row in rows for _, pixels in row) for axis in (1, 2))
    size = [gap + max(map(len, rows)) * (width + gap), len(rows) * (strip + height) + gap]
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(font_size)
    for y, row in enumerate(rows):
        for x, (label, pixels) in enumerate(row):
            left, top = gap + x * (width + gap), y * (strip + height)
            draw.text((left + width / 2, top + strip / 2), label, fill="black", font=font, anchor="mm")
            sheet.paste(Image.fromarray(pixels.transpose(1, 2, 0)), (left, top + strip))
    return sheet
