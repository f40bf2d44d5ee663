"""The page of a comparison in a browser."""

import pytest

from detector.evaluation.report.compare_page import write_comparison


def difference(run: str, figure: str, by: float, sure: bool = True, baseline: float = 0.4) -> dict:
    reach = abs(by) / 2 if sure else abs(by) * 2
    return {"run": run, "figure": figure, "baseline": baseline, "value": baseline + by, "difference": by,
            "interval": [by - reach, by + reach], "significant": sure}  # fmt: skip


@pytest.fixture
def comparison() -> dict:
    runs = [
        {"name": name, "seeds": 3, "AP": ap, "interval": [ap - 0.02, ap + 0.03], "groups": {"head": {"AP": 0.6}}}
        for name, ap in (("plain", 0.4), ("<b>weighted</b>", 0.43))
    ]
    differences = [
        difference("<b>weighted</b>", "AP", 0.03),
        difference("<b>weighted</b>", "head", -0.02),
        difference("<b>weighted</b>", "class:<script>x</script>", 0.1, sure=False),
        {**difference("<b>weighted</b>", "class:yak", 0.0), "interval": None, "significant": False},
    ]
    alarms = ["<b>weighted</b>: head got worse by 0.020 while AP rose"]
    return {"runs": runs, "baseline": "plain", "differences": differences, "alarms": alarms}


def test_comparison_shows_alarms_figures_and_classes(comparison, tmp_path, visit):
    write_comparison(tmp_path / "compare.html", comparison)
    page = visit(tmp_path / "compare.html")
    assert page.title() == "<b>weighted</b> beside plain"
    assert page.text_content("[role=alert]") == comparison["alarms"][0]
    assert "+0.030" in page.text_content("#figures tbody tr:nth-child(1)")
    says = page.eval_on_selector_all("tbody tr > :nth-child(6)", "all => all.map(c => c.textContent)")
    assert says[-4:] == ["better", "worse", "not clear", "not clear"]
    names = page.eval_on_selector_all("#classes tbody th", "all => all.map(c => c.textContent)")
    assert names == ["<script>x</script>", "yak"]


def test_forest_plot_has_zero_in_the_middle_and_bars_where_they_belong(comparison, tmp_path, visit):
    write_comparison(tmp_path / "compare.html", comparison)
    page = visit(tmp_path / "compare.html", width=1400)
    middles = """all => all.map(p => ['zero', 'at'].map(part => {
        const box = p.getBoundingClientRect(), own = p.querySelector('.' + part).getBoundingClientRect();
        return (own.left + own.width / 2 - box.left) / box.width;
    }))"""
    (zero, better), (_, worse) = page.eval_on_selector_all("#figures .range", middles)
    assert zero == pytest.approx(0.5, abs=0.01)
    assert better == pytest.approx(0.5 + 0.03 / 0.045 / 2, abs=0.01)  # the scale reaches to the widest, 0.045
    assert worse == pytest.approx(0.5 - 0.02 / 0.045 / 2, abs=0.01)


def test_comparison_of_a_run_with_itself(comparison, tmp_path, visit):
    comparison |= {"runs": comparison["runs"][:1], "differences": [], "alarms": []}
    write_comparison(tmp_path / "compare.html", comparison)
    assert "Nothing to compare" in visit(tmp_path / "compare.html").text_content("#figures")
