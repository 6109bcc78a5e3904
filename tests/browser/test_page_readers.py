"""Who reads the page, and where; and that hostile text stays text."""

from __future__ import annotations

import pytest
from pages import EVIL, PLOTS, plot

pytestmark = pytest.mark.browser


# ---- who reads it, and where -----------------------------------------------------------------


def test_tab_goes_through_the_page_in_reading_order_and_is_seen(visit):
    page = visit()
    seen = []
    for _ in range(22):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                """() => { const node = document.activeElement;
                const style = getComputedStyle(node);
                return [node.closest('section, nav, header')?.id || node.closest('nav, header')
                  ?.tagName || node.className, node.tagName, style.outlineStyle] }"""
            )
        )
    assert all(outline != "none" for _, _, outline in seen)
    assert [tag for _, tag, _ in seen][:2] == ["A", "BUTTON"]
    assert seen[0][0] == "skip"
    places = [place for place, _, _ in seen]
    assert places[2:10] == ["NAV"] * 8
    assert set(places[10:]) == {"ranking"}
    controls = [tag for _, tag, _ in seen[10:16]]
    assert controls == ["SELECT", "INPUT", "INPUT", "INPUT", "SUMMARY", "DIV"]
    assert {tag for _, tag, _ in seen[16:]} == {"BUTTON"}, "heads, then rows"


def test_everything_that_can_be_used_has_a_name_and_ids_are_unique(visit):
    page = visit()
    for name in PLOTS:
        plot(page, name)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(
            'button, a, select, input, summary, [role=region], [role=img]')]
          .filter((node) => !(node.getAttribute('aria-label') || node.labels?.length
            || node.textContent.trim()))
          .map((node) => node.outerHTML)"""
    )
    assert nameless == []
    doubled = page.evaluate(
        """() => { const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
          return ids.filter((id, at) => ids.indexOf(id) !== at) }"""
    )
    assert doubled == []
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2')].map((node) => Number(node.tagName[1]))"
    )
    assert levels == [1] + [2] * 8
    assert page.locator("#status").get_attribute("role") == "status"


def test_both_themes_follow_the_system_until_one_is_chosen_and_remembered(visit):
    def ground(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page = visit(color_scheme="dark")
    dark = ground(page)
    button = page.locator("#theme")
    button.click()
    light = ground(page)
    assert dark != light == ground(visit(color_scheme="light"))
    page.reload()
    assert ground(page) == light, "remembered"
    button.click()
    assert (ground(page), button.inner_text()) == (dark, "Colours: dark")
    page.emulate_media(media="print")
    assert ground(page) == light, "paper is light"


def test_a_page_without_storage_changes_its_theme_all_the_same(visit):
    page = visit(
        script="Object.defineProperty(window, 'localStorage', { get() { throw new Error('no') } })"
    )
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("name", ["made", "evil"])
def test_four_hundred_pixels_are_wide_enough_for_all_but_the_table(visit, name):
    page = visit(name, width=400)
    for section in PLOTS:
        if page.locator(f"#{section}").is_visible():
            plot(page, section)
    page.locator(".columns > summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    box = page.locator("#tables .box")
    assert box.evaluate("(node) => node.scrollWidth > node.clientWidth"), "it scrolls by itself"
    page.locator("#tables button.name").first.click()
    panel = page.locator("#panel")
    assert panel.evaluate("(node) => node.scrollWidth <= node.clientWidth")


def test_paper_shows_every_table_and_no_controls(visit, pages):
    page = visit()
    page.get_by_label("Filter").fill("method3")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    captions = page.locator(".paper caption").all_inner_texts()
    for block in pages[1]["made"].blocks:
        assert any(caption.startswith(f"{block.setting.dataset} ") for caption in captions)
    assert page.locator("button:visible, select:visible, input:visible").count() == (
        page.locator(".panels figcaption button").count()
    )
    for name in PLOTS:
        assert page.locator(f"#{name} .chart svg").first.is_visible(), "though never scrolled to"
    assert page.locator(".paper").get_by_text("method0").count() > 0, "whatever is filtered"
    assert page.locator(".paper .ref").count() == 1, "said once"
    widest = page.locator(".paper table").evaluate_all(
        "(tables) => Math.max(...tables.map((table) => table.offsetWidth))"
    )
    assert widest < 273 / 25.4 * 96, "of A4, across, within its margins"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".paper").count() == 0
    assert len(page.pdf()) > 20_000


def test_nothing_moves_for_who_wants_no_motion(visit):
    smooth = "getComputedStyle(document.documentElement).scrollBehavior"
    assert visit(reduced_motion="reduce").evaluate(smooth) == "auto"
    assert visit(reduced_motion="no-preference").evaluate(smooth) == "smooth"


def test_without_scripts_all_tables_are_read_and_nothing_is_dead(visit, pages):
    page = visit(java_script_enabled=False)
    assert page.locator("#tables table").count() == len(pages[1]["made"].blocks)
    assert page.locator("button:visible, select:visible").count() == 0
    assert page.get_by_text("failed (nan)").first.is_visible()


# ---- hostile text ----------------------------------------------------------------------------


def test_hostile_text_stays_text_wherever_it_is_shown(visit):
    page = visit("evil")
    page.locator(".columns > summary").click()
    page.get_by_role("button", name="All").click()
    for name in ("cost", "curves", "agreement", "overall"):
        section = plot(page, name)
        section.locator(".alternative > summary").click()
        section.locator(".mark-symbol path, .mark-rect path").first.hover(force=True)
    for at in range(page.locator("#tables button.name").count()):
        page.locator("#tables button.name").nth(at).click()
        page.evaluate("for (const each of panel.querySelectorAll('details')) each.open = true")
        page.keyboard.press("Escape")
    page.get_by_label("Filter").fill("<script>")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("window.__pwn") is None
    assert page.locator("img, iframe, object, embed, main script, dialog script").count() == 0
    assert page.locator("svg").evaluate_all("(all) => all.every((one) => one.closest('.chart'))")
    links = page.locator("a").evaluate_all("(all) => all.map((one) => one.getAttribute('href'))")
    assert all(link.startswith("#") for link in links), "the made-up addresses have spaces"
    assert EVIL.strip() in page.locator("h1").inner_text()


def test_what_slips_into_the_document_may_not_run(visit, chromium, pages):
    """The policy, by itself: as if a text had become markup after all."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"file://{pages[0]}/made.html")
    page.evaluate(
        """() => { document.body.insertAdjacentHTML('beforeend',
          '<img src="https://example.org/x.png" onerror="window.__pwn=1">');
        const script = document.createElement('script'); script.textContent = 'window.__pwn = 1';
        document.body.append(script); }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.__pwn") is None
    # a page's own code may not evaluate text either; what the debugger sends may, so from a timer
    page.evaluate(
        """() => new Promise((done) => setTimeout(() => {
          try { new Function('window.__pwn = 1')() } catch { window.__kept = 1 } done() }, 0))"""
    )
    assert page.evaluate("[window.__pwn, window.__kept]") == [None, 1]
    context.close()
