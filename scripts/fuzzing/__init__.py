"""What `scripts/fuzz.py` and `scripts/make_rejected.py` share: small archives and models, taken apart and altered."""
