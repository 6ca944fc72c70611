"""Work on a device: worker processes, the scheduler, the session that feeds them, claims."""
