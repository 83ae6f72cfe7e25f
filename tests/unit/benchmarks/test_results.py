"""Figures become tables: what a simulation's says."""

from benchmarks.results import render_simulation


def test_a_simulation_has_a_row_per_order_and_number_of_photos() -> None:
    row = {
        "order": "uncertainty",
        "photos": 50,
        "miou_mean": 0.2514,
        "miou_std": 0.01,
        "saved_mean": -0.05,
        "saved_std": 0.02,
    }
    gain = {
        "order": "uncertainty", "photos": 50, "miou": 0.012, "miou_low": -0.001, "miou_high": 0.025, "seconds": -1.26,
        "seconds_low": -2, "seconds_high": -0.5,
    }  # fmt: skip
    text = render_simulation({
        "name": "simulate", "command": "maskloop simulate …", "measured_at": "2026-05-01T00:00:00", "seconds": 600,
        "seeds": 3, "curve": [row], "against_chance": [gain],
    })  # fmt: skip

    assert "| uncertainty | 50 | 0.251 ± 0.010 | -5% ± 2% |" in text
    assert "over 3 seeds." in text
    assert "| uncertainty | 50 | +0.012 (-0.001 … +0.025) | -1.3 (-2.0 … -0.5) |" in text
