"""What the page does: sort, filter, tell, draw."""

from __future__ import annotations

import pytest
from pages import PLOTS, names, plot

pytestmark = pytest.mark.browser


# ---- the table -------------------------------------------------------------------------------


def test_a_click_on_a_head_sorts_best_first_and_a_second_one_turns_the_order(visit, pages):
    page = visit()
    block = pages[1]["made"].blocks[0]
    for index, column in enumerate(block.columns):
        if not column.narrow or index == 0:
            continue
        rows = [row for row in block.rows if not row.baseline]
        known = [row for row in rows if row.scores[index].n]
        known.sort(key=lambda row: -row.scores[index].mean)
        unknown = [row.label for row in rows if not row.scores[index].n]
        head = page.locator(f'th:has(> [data-key="score {index}"])')
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert names(page) == [row.label for row in known] + unknown
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert names(page) == [row.label for row in reversed(known)] + unknown
        assert page.locator("th[aria-sort]").count() == 1
    assert page.locator("tbody").nth(1).locator("button.name").all_inner_texts() == ["untrained"]
    assert page.locator("tbody").nth(2).inner_text().startswith("published, not ranked")


def test_the_keyboard_sorts_and_stays_where_it_is(visit):
    page = visit()
    page.locator('[data-key="cost seconds"]').focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.key") == "cost seconds"
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert page.locator("#status").inner_text().endswith("by training cost seconds, rising")
    page.keyboard.press("Space")
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_rows_that_separate_are_parted_and_the_best_is_marked_in_words(visit, pages):
    page = visit()
    scores = [
        row.scores[0]
        for row in sorted(
            (r for r in pages[1]["made"].blocks[0].rows if not r.baseline),
            key=lambda row: -(row.scores[0].mean or 0),
        )
    ]
    borders = [
        i
        for i in range(1, len(scores))
        if scores[i].rank and scores[i - 1].rank and scores[i - 1].rank_to < scores[i].rank
    ]
    rows = page.locator("#tables tbody:first-of-type tr")
    cut = [i for i in range(rows.count()) if "cut" in (rows.nth(i).get_attribute("class") or "")]
    assert cut == borders != []
    assert "#1" in page.locator("td.score:has(b)").first.inner_text()
    assert "best mean" in page.locator("td.score:has(b)").first.text_content()


def test_filters_narrow_the_rows_and_say_how_many_are_left(visit):
    page = visit()
    status = page.locator("#status")
    assert status.inner_text().startswith("10 of 10 rows")
    page.get_by_label("Filter").fill("method3")
    assert names(page) == ["method3"]
    assert status.inner_text().startswith("1 of 10 rows")
    page.get_by_label("Filter").fill("EMPTY-clusters")
    assert names(page) == ["method3"]
    page.get_by_label("Only healthy").check()
    assert page.locator("button.name:visible").count() == 0 + page.locator(".panels .name").count()
    assert "No row passes the filters" in page.locator("#tables").inner_text()
    page.get_by_label("Filter").fill("")
    assert "method3" not in names(page)
    assert len(names(page)) == 8
    page.get_by_label("Baselines").uncheck()
    assert "untrained" not in page.locator("#tables").inner_text()
    assert status.inner_text().startswith("8 of 10 rows")


def test_columns_are_narrow_at_first_and_come_and_go_by_protocol_and_metric(visit, pages):
    page = visit()
    heads = page.locator('#tables thead tr:last-child th[scope="col"]')
    narrow = sum(column.narrow for column in pages[1]["made"].blocks[0].columns)
    assert heads.count() == narrow + 4  # cost and record have two each
    page.locator(".columns > summary").click()
    page.get_by_role("button", name="None").click()
    assert heads.count() == 0
    page.get_by_label("knn-1", exact=True).check()
    assert heads.all_inner_texts()[0].startswith("top1")
    assert page.locator('#tables th[scope="colgroup"]').all_inner_texts() == ["knn-1"]
    page.locator(".protocol-choice", has_text="knn-1").locator("summary").click()
    page.get_by_label("top5", exact=True).check()
    assert heads.count() == 2
    assert page.locator('#tables th[scope="colgroup"]').get_attribute("colspan") == "2"
    page.get_by_role("button", name="All").click()
    assert heads.count() == len(pages[1]["made"].blocks[0].columns) + 7


def test_another_table_is_one_choice_away_and_the_rest_follows(visit, pages):
    page = visit()
    page.get_by_label("Table").select_option("3")
    assert page.locator("#tables caption").inner_text().startswith("data3")
    block = pages[1]["made"].blocks[3]
    assert names(page) == [row.label for row in block.rows if not row.baseline]
    assert "published" not in page.locator("#tables").inner_text(), "they are about data0"
    assert page.locator("#tables table").count() == 1, "only what is shown is in the document"


# ---- the panel -------------------------------------------------------------------------------


def test_the_panel_says_everything_of_a_row_and_gives_the_focus_back(visit, pages):
    page = visit()
    page.locator("button.name", has_text="method3").first.focus()
    page.keyboard.press("Enter")
    panel = page.get_by_role("dialog", name="method3")
    page.evaluate("for (const each of panel.querySelectorAll('details')) each.open = true")
    text = panel.inner_text()
    row = next(r for r in pages[1]["made"].blocks[0].rows if r.label == "method3")
    for said in (row.details.command, "temperature", "milestones", "fingerprint", "source_sha256",
                 "2.15.0", "built in", "2 of 10 clusters are empty", "stage main", "feature_std",
                 "untrained", *row.cells.values()):  # fmt: skip
        assert said in text
    for value in row.scores[0].values.values():
        assert repr(value) in text
    assert page.evaluate("panel.contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert not panel.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "method3"


def test_a_row_of_which_nothing_is_known_has_a_panel_too(visit):
    page = visit()
    page.locator("#tables button.name", has_text="method4").click()
    assert "Nothing was recorded" in page.locator("#panel").inner_text()
    assert "null" not in page.locator("#panel").inner_text()
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#panel").is_visible()


def test_the_command_is_copied_or_selected_where_the_clipboard_is_shut(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.locator("#tables button.name").first.click()
    page.get_by_role("button", name="Copy").click()
    page.get_by_text("copied", exact=True).wait_for()
    command = page.locator("#panel pre code").inner_text()
    assert page.evaluate("navigator.clipboard.readText()") == command
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()) }")
    page.get_by_role("button", name="Copy").click()
    page.get_by_text("selected; press Ctrl+C").wait_for()
    assert page.evaluate("String(getSelection())").strip() == command


# ---- plots -----------------------------------------------------------------------------------


def test_every_plot_is_drawn_described_and_there_as_a_table(visit):
    page = visit()
    for name in PLOTS:
        section = plot(page, name)
        box = section.locator(".chart").first
        assert box.get_attribute("role") == "img"
        assert len(box.get_attribute("aria-label")) > 20
        assert box.locator("svg").get_attribute("aria-hidden") == "true"
        section.locator(".alternative > summary").click()
        section.locator(".alternative tbody tr").first.wait_for()


def test_the_front_holds_what_nothing_beats_in_cost_and_score_together(visit, pages):
    page = visit()
    section = plot(page, "cost")
    rows = [r for r in pages[1]["made"].blocks[0].rows if not r.baseline and r.scores[0].n]
    points = {r.label: (r.costs.seconds, -r.scores[0].mean) for r in rows}
    front = [
        a
        for a, (cost, score) in sorted(points.items(), key=lambda item: item[1])
        if not any(c <= cost and s < score for b, (c, s) in points.items() if b != a)
    ]
    assert f"better: {', '.join(front)}." in section.locator(".reading").inner_text()
    section.locator(".controls").get_by_label("Cost").select_option("FLOPs/image")
    assert "against FLOPs/image" in section.locator(".chart").get_attribute("aria-label")
    section.locator(".controls").get_by_label("Score").select_option(label="linear-1 top1")
    assert "linear-1 top1 against" in section.locator(".chart").get_attribute("aria-label")
    section.locator(".chart svg path[aria-roledescription], .mark-symbol path").first.click()
    assert page.locator("#panel").is_visible(), "a point opens its row"


def test_the_heat_map_shows_a_row_and_the_difference_of_two(visit, pages):
    page = visit()
    section = plot(page, "corruption")
    block = pages[1]["made"].blocks[0]
    one, two = (next(r for r in block.rows if r.label == name) for name in ("method0", "method3"))
    at = next(i for i, column in enumerate(block.columns) if column.metric == "fog.4")
    section.locator(".controls").get_by_label("Row").select_option("method0")
    assert section.locator(".mark-rect path").count() == 15
    section.locator(".alternative > summary").click()
    fog = section.locator("tbody tr", has_text="fog").locator("td")
    assert fog.nth(3).inner_text() == f"{100 * one.scores[at].mean:.1f}"
    section.locator(".controls").get_by_label("Minus").select_option("method3")
    section.locator(".alternative > summary").click()
    gap = 100 * (one.scores[at].mean - two.scores[at].mean)
    said = fog.nth(3).inner_text().replace("−", "-")
    assert float(said) == pytest.approx(gap, abs=0.06)
    assert "method0 minus method3" in section.locator(".chart").get_attribute("aria-label")


def test_curves_follow_the_filter_of_the_table(visit):
    page = visit()
    section = plot(page, "curves")
    before = section.locator("figure").count()
    assert before == 8  # of nine methods, one of which nothing is known
    page.get_by_label("Filter").fill("method3")
    section.locator("figure").nth(1).wait_for(state="detached")
    assert section.locator("figcaption").all_inner_texts() == ["method3"]
    section.locator(".controls").get_by_label("Curve").select_option("knn-1")
    assert "knn-1 by epoch: 1 of 1 row" in section.locator(".reading").inner_text()
