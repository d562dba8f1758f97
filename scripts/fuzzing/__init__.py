"""What `scripts/fuzz.py` and `scripts/make_refused.py` share: small archives and models, taken apart and altered."""
