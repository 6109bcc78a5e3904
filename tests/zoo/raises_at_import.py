"""Cannot be imported."""

raise RuntimeError("cable\ncut \x1b[31mred\x1b[0m <script>alert(1)</script>")
