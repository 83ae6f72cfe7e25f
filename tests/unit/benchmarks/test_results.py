"""Figures become tables: what a simulation's says."""

from benchmarks.results import render_simulation


def test_a_simulation_has_a_row_per_order_and_number_of_photos() -> None:
    row = {
        "order": "queue",
        "photos": 50,
        "miou_mean": 0.2514,
        "miou_std": 0.01,
        "saved_mean": -0.05,
        "saved_std": 0.02,
    }
    text = render_simulation({
        "name": "simulate", "command": "maskloop simulate …", "measured_at": "2026-05-01T00:00:00", "seconds": 600,
        "seeds": 3, "curve": [row],
    })  # fmt: skip

    assert "| queue | 50 | 0.251 ± 0.010 | -5% ± 2% |" in text
    assert "over 3 seeds." in text
