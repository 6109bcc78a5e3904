"""Networks from image to features; the registry knows them by name."""
