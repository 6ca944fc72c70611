"""Work on a device: worker processes, the session that feeds them, claims on runs."""
