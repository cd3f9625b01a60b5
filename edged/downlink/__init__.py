"""Commands: values on their way down to a point. One path, whatever the entrance; see `api.py` for the contract."""
