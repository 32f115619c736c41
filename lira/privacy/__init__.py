"""DP-SGD by Opacus: which networks, private training, accounting; and the audit, which needs no torch."""
