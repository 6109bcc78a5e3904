"""Names with markup, colours and paths, and one that is endless; a summary with the same."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)


def sly(backbone, data):
    """Is \x1b[31mred\x1b[0m, <script>alert(1)</script> and =cmd|' /C calc'!A0."""
    return backbone


@hookimpl
def methods():
    bad = ["<script>alert(1)</script>", "\x1b[2Jcleared", "../../etc/passwd", "n" * 10_000, "a\nb"]
    return {"sly": sly, **dict.fromkeys(bad, sly)}
