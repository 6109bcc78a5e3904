"""Networks from image to features; the registry finds them by name, and nobody imports them."""
