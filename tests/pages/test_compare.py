"""The page of a comparison in a browser."""

import numpy as np
import pytest

from detector.evaluation.compare import Alarm, Comparison, Difference, Entry, FigureName
from detector.evaluation.metrics.significance import Chance, SeedFigures
from detector.evaluation.report.comparison import write_comparison

BOLD = "<b>weighted</b>"
SCRIPT = "<script>x</script>"


def difference(figure: FigureName, by: float, sure: bool = True) -> Difference:
    reach = abs(by) / 2 if sure else abs(by) * 2
    return Difference(BOLD, figure, 0.4, 0.4 + by, Chance(reach / 2.7764, 4))  # 2.7764: t of 4 degrees of freedom


@pytest.fixture
def comparison() -> Comparison:
    def entry(name: str, ap: float) -> Entry:
        draws = np.linspace(ap - 0.02, ap + 0.03, 99)
        figures = {
            FigureName("AP"): SeedFigures(np.array([ap - 0.01, ap, ap + 0.01]), np.stack([draws] * 3), 50),
            FigureName("head"): SeedFigures(np.full(3, 0.6), np.full((3, 99), 0.6), 50),
        }
        return Entry(name, 3, figures, {"loss": {"alpha": name}, "model": {"neck": "fpn"}})

    worse = difference(FigureName("head"), -0.02)
    differences = [
        difference(FigureName("AP"), 0.03),
        worse,
        difference(FigureName(SCRIPT, of_class=True), 0.1, sure=False),
        Difference(BOLD, FigureName("yak", of_class=True), 0.4, 0.4, None),
    ]
    return Comparison(
        "val of a.yaml", [entry("plain", 0.4), entry(BOLD, 0.43)], differences, [Alarm(BOLD, 0.03, [worse], tested=2)]
    )


def test_comparison_shows_alarms_figures_and_classes(comparison, tmp_path, visit):
    write_comparison(tmp_path / "compare.html", comparison)
    page = visit(tmp_path / "compare.html")
    assert page.title() == "<b>weighted</b> beside plain"
    tests = "Holm's test of 2 classes"
    alarm = f"<b>weighted</b>: AP rose by 0.030, but head classes fell by more than chance ({tests}): head by 0.020"
    assert page.text_content("[role=alert]") == alarm
    assert "Holm 1979" in page.text_content("#verdict")
    verdict = page.text_content("#verdict li.good")
    assert "<b>weighted</b> is better than plain by 0.030 AP" in verdict
    assert "+0.015 to +0.045, 95 % sure (seeds: 3 against 3; degrees of freedom: 4.0)" in verdict
    assert "docs/evaluation.md says how" in page.text_content("#figures")
    assert "Evaluated on val of a.yaml." in page.text_content("#runs")
    cells = page.locator("#settings tbody tr > *").all_inner_texts()
    assert cells == ["loss.alpha", BOLD, "plain", BOLD]
    assert [s.strip() for s in page.locator("#runs tbody td:nth-child(5)").all_inner_texts()] == ["0.600", "0.600"]
    assert "+0.030" in page.text_content("#figures tbody tr:nth-child(1)")
    says = page.eval_on_selector_all(
        "#figures tbody tr > :nth-child(3), #classes tbody tr > :nth-child(3)", "all => all.map(c => c.textContent)"
    )
    assert says == ["better", "worse", "not clear", "not clear"]
    names = page.eval_on_selector_all("#classes tbody th", "all => all.map(c => c.textContent)")
    assert names == [SCRIPT, "yak"]


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
    write_comparison(tmp_path / "compare.html", Comparison("val", comparison.entries[:1], [], []))
    assert "Nothing to compare" in visit(tmp_path / "compare.html").text_content("#figures")
