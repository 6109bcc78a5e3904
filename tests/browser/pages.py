"""What the tests of the page have in common: hostile text, and how to look at a page."""

from __future__ import annotations

EVIL = (
    """ "><script>window.__pwn=1</script><img src=x onerror="window.__pwn=1">"""
    "<svg onload=window.__pwn=1></svg>'</script></noscript> javascript:window.__pwn=1"
)
PLOTS = ("cost", "corruption", "curves", "agreement", "overall")


def names(page):
    return page.locator("#tables tbody:first-of-type button.name").all_inner_texts()


def plot(page, section):
    """Scrolls there, and waits for the picture."""
    page.locator(f"#{section}").scroll_into_view_if_needed()
    page.locator(f"#{section} .chart svg").first.wait_for()
    return page.locator(f"#{section}")
