"""Networks applied to images of any kind and size."""
