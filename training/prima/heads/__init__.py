"""Diagnosis, referral and priority heads on the frozen study model (arXiv 2509.18638, Methods)."""
